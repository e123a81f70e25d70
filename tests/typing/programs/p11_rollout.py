"""A rollout by program: a canary, then all of it, then the old version is forgotten."""
import perdure.sync
from perdure import Client

async def roll_out(client: Client, old: str, new: str) -> int:
    deployment = client.deployment
    before = await deployment.describe()
    await deployment.set_ramping_version(new, 2.5, abort_if="failure_rate > 2%", reason="canary", revision=before.revision)
    done = await deployment.set_current_version(new)
    for version in await deployment.list():
        if version.version == old and version.state == "drained" and not version.executors:
            return (await deployment.delete_version(old)).stranded
    return done.revision

def roll_back(client: perdure.sync.Client, good: str) -> bool:
    client.deployment.unset_ramping_version(reason="bad")
    return client.deployment.set_current_version(good, allow_no_executors=True).changed
