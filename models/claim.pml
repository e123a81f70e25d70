/* Who may write for a workflow: claim, fence, reset, failover.

   One row, two (EXECUTORS) executors that each may take it over at any moment: no lease is modelled, since safety must
   not rest on one. A write is one atomic statement that compares what the executor was given with the row.

   FENCE    how a write is fenced: TOKEN (random, new at every claim), EPOCH (a counter), NONE (the history's key alone)
   RESET    an operator begins the next run from a kept prefix, in mid-flight
   LOSSY    the primary fails, and a standby that was behind takes over
   NOTICE   who finds another timeline when it connects anew puts its runs away before it writes (else a run whose last
            records were lost would go on after them)

   Run by tools/models.sh, which also checks that each weaker fence is caught. */

#ifndef EXECUTORS
#define EXECUTORS 2
#endif
#ifndef CLAIMS
#define CLAIMS 4
#endif
#define STEPS 2
#define UNFENCED 0
#define EPOCH 1
#define TOKEN 2

/* The primary's row and history. Tokens are drawn once and never again, whatever a failover forgets. */
bool open = true;
byte nth = 1, epoch, token;       /* which run this is; what the fences compare */
byte history[STEPS];            /* by which token each step of the run was recorded; 0: not yet */
byte timeline, drawn, claims;

/* What the standby has. */
bool s_open = true;
byte s_run = 1, s_epoch, s_token, s_history[STEPS];

#if FENCE == TOKEN
#define FITS (token == my_token && nth == my_run)
#elif FENCE == EPOCH
#define FITS (epoch == my_epoch && nth == my_run)
#else
#define FITS (history[i] == 0)
#endif

#ifdef NOTICE
#define CONNECTED (timeline == my_timeline)
#else
#define CONNECTED true
#endif

proctype Executor() {
  byte my_token, my_epoch, my_run, my_timeline, i;
  bool seen[STEPS];
  do
  :: atomic {                                      /* the claim: whoever held it before is not asked */
       open && claims < CLAIMS ->
       claims++; epoch++; drawn++; token = drawn;
       my_token = token; my_epoch = epoch; my_run = nth; my_timeline = timeline
     }
     atomic {                                      /* the history is read by a statement begun after the claim */
       i = 0;
       seen[0] = (nth == my_run && history[0] != 0);
       seen[1] = (nth == my_run && history[1] != 0)
     }
     do
     :: i < STEPS && seen[i] -> i++                /* replay */
     :: i < STEPS && !seen[i] ->                   /* the step runs, then its record is written */
          atomic {
            if
            :: open && CONNECTED && FITS ->
                 assert(token == my_token && nth == my_run);    /* only the holder writes, and only in its run */
                 assert(history[i] == 0);                       /* no outcome is replaced */
                 assert(i == 0 || history[i - 1] != 0);         /* no gap */
                 history[i] = my_token;
                 i++
            :: else -> break                                    /* refused: it stops */
            fi
          }
     :: i == STEPS ->
          atomic {
            if
            :: open && CONNECTED && token == my_token && nth == my_run ->
                 assert(history[0] != 0 && history[1] != 0);
                 open = false
            :: else -> skip
            fi
          }
          break
     :: true -> break                              /* kill -9, or asleep for good; what it sent may have arrived */
     od
  :: !open -> break
  :: claims == CLAIMS -> break
  od
}

proctype Operator() {
  atomic {
    open ->
    nth++; drawn++; token = drawn; history[1] = 0  /* the next run keeps the first step; its token is nobody's */
  }
}

proctype Standby() {                               /* follows, some way behind */
  do
  :: atomic {
       timeline == 0 ->
       s_open = open; s_run = nth; s_epoch = epoch; s_token = token;
       s_history[0] = history[0]; s_history[1] = history[1]
     }
  :: timeline > 0 -> break
  od
}

proctype Failover() {
  atomic {
    timeline == 0 ->
    timeline = 1;
    open = s_open; nth = s_run; epoch = s_epoch; token = s_token;
    history[0] = s_history[0]; history[1] = s_history[1]
  }
}

init {
  byte n;
  atomic {
    for (n : 1 .. EXECUTORS) { run Executor() }
#ifdef RESET
    run Operator();
#endif
#ifdef LOSSY
    run Standby();
    run Failover();
#endif
    skip
  }
}
