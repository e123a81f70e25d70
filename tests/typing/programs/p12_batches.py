"""What a bad version has left, by program: looked at first, moved, and what failed tried again."""
import perdure.sync
from perdure import Client
from perdure.batches import BatchInfo, Cancel, Resume

async def move_back(client: Client, good: str, bad: str) -> BatchInfo:
    batch = client.batch(Resume(version=good), f"version = '{bad}' AND problem IS NOT NULL", reason="bad rollout")
    plan = await batch.plan(samples=5, seed=7)
    for sample in plan.samples:
        if sample.verdict == "diverges":
            raise RuntimeError(f"{sample.id} at {sample.step}: {sample.recorded} beside {sample.called}")
    done = await batch.apply(rate=200, progress=lambda info: print(info.waiting))
    if done.failed:
        handle = client.batch_handle(done.key)
        async for target in handle.targets("failed"):
            print(target.id, target.detail)
        done = await handle.retry(reason="once more")
    return done

def stop(client: perdure.sync.Client) -> int:
    return client.batch(Cancel(), "status = open", reason="over", key="over").apply().done
