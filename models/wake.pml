/* A message and a workflow that goes to sleep: nobody sleeps with mail in the box, though every notification is lost.

   The sender inserts the message, and with WAKE a wake row in the same commit. The receiver looks into its inbox, and
   if it is empty parks: status waiting. The poll claims whatever waits and has a wake row; the claim deletes it.

   Without WAKE the poll claims what waits and has mail that came after the look, as seen by a statement that began before
   the park: the look and the park are two statements, and the message falls between them. */

#define RUNNING 0
#define WAITING 1

#ifndef MESSAGES
#define MESSAGES 2
#endif

byte status = RUNNING, inbox, taken;
bool wake;

active proctype Sender() {
  byte n;
  for (n : 1 .. MESSAGES) {
    atomic {
      inbox++;
#ifdef WAKE
      wake = true
#else
      if :: status == WAITING -> wake = true :: else -> skip fi   /* tells only whom it saw asleep */
#endif
    }
  }
}

active proctype Receiver() {
  bool none;
  do
  :: status == RUNNING && taken < MESSAGES ->
       none = (inbox == 0);                       /* reads the inbox */
       if
       :: !none -> atomic { inbox--; taken++ }    /* the record and the mark, one commit */
       :: none  -> status = WAITING                /* parks */
       fi
  :: taken == MESSAGES -> break
  od
}

active proctype Poll() {
  do
  :: atomic { status == WAITING && wake -> wake = false; status = RUNNING }
  :: taken == MESSAGES -> break
  od
}

ltl all_are_received { <> (taken == MESSAGES) }
