/* Create, stop, run, take-over, expiry and reconcile of ONE sandbox, in every interleaving, with crashes between any
 * two steps. What the simulation plays by chance with the real code, spin looks at completely, in this model of it.
 *
 * A stream's append is atomic and conditional on the version (src/nexus/engine/streams.py: `execute` loads, decides and
 * appends, and decides anew after a conflict), so "load, decide, append" is one d_step here; what is decided at an
 * `expected` version compares it. A provider's effect is atomic; nothing is between an effect and its answer but a
 * crash. Time is not modelled: a deadline or a lease may have passed whenever somebody looks, which allows more than
 * clocks do.
 *
 * Each F_… macro plants one fault; tests/model/test_model.py knows what each of them breaks.
 */

#define CREATOR 1
#define STOPPER 2
#define RUNNER  3
#define WORKER  4          /* and 5 */
#define HEALER  6

/* --- the stream: what `fold` (src/nexus/domain/sandbox.py) makes of the events ----------------------------------- */
mtype = { NONE, CREATING, ACTIVE, STOPPED, CREATE, STOP, NOTHING, RUNNING, ENDED };

mtype state   = NONE;
mtype pending = NOTHING;   /* the operation in flight */
byte  attempt = 0;         /* the highest attempt given out: the fencing token */
byte  holder  = 0;
byte  ref     = 0;         /* the current resource, 0: none */
byte  version = 0;
mtype execution = NOTHING; /* one execution id: NOTHING, RUNNING (its intent is recorded), ENDED (one outcome is) */
bool  in_time = true;      /* the run is inside its lease */
bool  expired = false;     /* the time to live is over */

/* --- the provider ------------------------------------------------------------------------------------------------ */
byte resource = 0;         /* the one that is there, 0: none. Ids are never used again. */
byte made     = 0;
byte runs     = 0;         /* how often the execution id ran: must stay below 2 (I2) */
bool cancelled = false;    /* the agent claims an id that is cancelled before it came: it never starts */

/* --- processes --------------------------------------------------------------------------------------------------- */
byte all = 0, over = 0;    /* how many there are, and how many have come to an end */
bool healed = false;

#define LIVE(r)  (state == ACTIVE && pending == NOTHING && ref == r)

/* kill -9 of one process, between any two steps of it */
byte killed = 0;

active proctype killer() {
	if
#ifndef NO_KILLER
	:: killed = CREATOR :: killed = STOPPER :: killed = RUNNER :: killed = WORKER
#endif
	:: skip
	fi
}

#define MORTAL(who)  unless { killed == who }

/* --- effects (src/nexus/engine/effects.py calls them; src/nexus/domain/provider.py says what they promise) ------- */
inline ensure(got) {
	d_step {
		assert(state != NONE);                             /* I8: no event, no effect */
		if :: resource == 0 -> made++; resource = made :: else fi;
		got = resource
	}
}

inline destroy(which) {
	d_step {
		if
		:: which != 0 && resource == which ->
			assert(!LIVE(which));                          /* I9: nothing live is destroyed */
			resource = 0
		:: else
		fi
	}
}

inline discard() {
	d_step {
		if
		:: resource != 0 -> assert(!LIVE(resource)); resource = 0
		:: else
		fi
	}
}

/* --- outcomes: decisions._my_attempt refuses what is not of the attempt in flight -------------------------------- */
#ifdef F_NO_FENCE
#define MINE(operation, number)  (pending == operation)
#else
#define MINE(operation, number)  (pending == operation && attempt == number)
#endif

inline record_started(number, got, accepted) {               /* decisions._record_started */
	d_step {
		if
		:: MINE(CREATE, number) ->
			assert(number == attempt);                     /* I4: an outcome belongs to the last attempt */
			state = ACTIVE; pending = NOTHING; ref = got; version++; accepted = true
		:: else -> accepted = false
		fi
	}
}

inline record_failed(number, accepted) {                     /* decisions._record_failed */
	d_step {
		if
		:: MINE(CREATE, number) ->
			assert(number == attempt);
			state = STOPPED; pending = NOTHING; version++; accepted = true
		:: else -> accepted = false
		fi
	}
}

inline record_stopped(number) {                              /* decisions._record_stopped, with _runs_lost */
	d_step {
		if
		:: MINE(STOP, number) ->
			assert(number == attempt);
			state = STOPPED; pending = NOTHING; version++;
			if :: execution == RUNNING -> execution = ENDED :: else fi
		:: else
		fi
	}
}

inline record_lost_at(seen_version, gone) {                  /* decisions._record_lost, at `expected` */
	d_step {
		if
		:: version == seen_version && state == ACTIVE ->
			assert(resource != gone);                      /* I9: an outage is never taken for "gone" */
			state = STOPPED; pending = NOTHING; version++;
			if :: execution == RUNNING -> execution = ENDED :: else fi
		:: else
		fi
	}
}

inline request_stop(who, number, thorough, asked) {          /* decisions._request_stop; service._intend */
	d_step {
		if
		:: state != NONE && state != STOPPED && pending != STOP ->
			thorough = (pending != NOTHING);               /* overtaking what may have been cut short */
			attempt++; number = attempt; pending = STOP; holder = who; version++; asked = true
		:: else -> asked = false
		fi
	}
}

inline carry_out_stop(number, thorough) {                    /* effects.stop */
	destroy(ref);
	if :: thorough || ref == 0 -> discard() :: else fi;
	record_stopped(number)
}

/* --- who creates: creation.begin, effects.create ----------------------------------------------------------------- */
proctype creator() {
	byte got; bool accepted;
	{
#ifdef F_EFFECT_FIRST
	ensure(got);
#endif
	d_step { state = CREATING; pending = CREATE; attempt = 1; holder = CREATOR; version++ }
	if
	:: ensure(got);
		record_started(1, got, accepted);
		if
		:: !accepted ->                                    /* effects._started: Superseded */
#ifdef F_LATE_CREATOR_DESTROYS
			destroy(got)
#else
			if :: state == STOPPED || pending == STOP -> destroy(got) :: else fi
#endif
		:: else
		fi
	:: /* the provider fails, and may have made it all the same: effects._creation_failed records, then cleans up */
		if :: ensure(got) :: skip fi;
#ifdef F_CLEANS_UP_FIRST
		discard();
		record_failed(1, accepted)
#else
		record_failed(1, accepted);
		if :: accepted -> discard() :: else fi
#endif
	fi
	} MORTAL(CREATOR);
end:	over++
}

/* --- who stops: service.stop ------------------------------------------------------------------------------------- */
proctype stopper() {
	byte number; bool thorough, asked;
	{
	if
	:: request_stop(STOPPER, number, thorough, asked);
		if :: asked -> carry_out_stop(number, thorough) :: else fi
	:: skip
	fi
	} MORTAL(STOPPER);
end:	over++
}

/* --- who runs code: executions.run ------------------------------------------------------------------------------- */
inline send_run(target) {
	d_step {
		if
		:: target != 0 && resource == target && !cancelled -> assert(execution != NOTHING); /* I8 */
			runs++;
			assert(runs < 2);                              /* I2 */
			/* Said lost for its lease, then it must not start any more. */
			assert(execution == RUNNING)
		:: else
		fi
	}
}

proctype runner() {
	bool begun; byte target;
	{
	d_step {                                               /* decisions._start_execution */
		if
		:: state == ACTIVE && pending == NOTHING -> execution = RUNNING; target = ref; version++; begun = true
		:: else -> begun = false
		fi
	}
	if
	:: begun ->
		send_run(target);
#ifdef F_RUNS_AGAIN
		if :: send_run(target) :: skip fi;                 /* an unknown outcome is tried again */
#endif
		d_step { if :: execution == RUNNING -> execution = ENDED; version++ :: else fi }  /* decisions._open_run refuses a late one */
	:: else
	fi
	} MORTAL(RUNNER);
end:	over++
}

/* --- recovery.settle, for workers and for the healer ------------------------------------------------------------- */
inline settle(who) {
	/* executions.lose: the lease ran out, or its holder is dead. First it is made sure that it does not run. */
	if
	:: execution == RUNNING && (!in_time || killed == RUNNER) ->
#ifndef F_LOSES_WITHOUT_CANCEL
		d_step { if :: resource != 0 -> cancelled = true :: else fi };
#endif
		d_step { if :: execution == RUNNING -> execution = ENDED; version++ :: else fi }
	:: else
	fi;
	/* recovery._take_over: decided at the version that was read, with a new attempt */
	d_step { seen = version; op = pending; taken = false };
	if
#ifdef F_NOBODY_TAKES_OVER
	:: false
#else
	:: op != NOTHING && attempt < 5 ->
#endif
		d_step {
			if
			:: version == seen && pending == op ->
				attempt++; number = attempt;
				holder = who; version++; taken = true
			:: else
			fi
		};
		if
		:: taken && op == CREATE ->                        /* effects.adopt */
			got = resource;                                /* find */
			if
			:: got != 0 -> record_started(number, got, accepted)
#ifdef F_ADOPTER_CLEANS_UP_FIRST
			:: else -> discard(); record_failed(number, accepted)
#else
			:: else ->                                     /* recorded first, then cleaned up, as by the creator */
				record_failed(number, accepted);
				if :: accepted -> discard() :: else fi
#endif
			fi
		:: taken && op == STOP -> carry_out_stop(number, true)
		:: else
		fi
	:: else
	fi;
	/* recovery._expire: expiry and open runs are looked at in the state that the stop is appended to */
#ifdef F_EXPIRES_BY_AN_OLD_READING
	asked = (state == ACTIVE && pending == NOTHING && expired && (execution != RUNNING || !in_time));
#endif
	d_step {
		if
#ifdef F_EXPIRES_BY_AN_OLD_READING
		:: asked && state == ACTIVE && pending == NOTHING ->
#else
		:: state == ACTIVE && pending == NOTHING && expired && (execution != RUNNING || !in_time) ->
#endif
			assert(!(execution == RUNNING && in_time));          /* no expiry under a run that is inside its time-out */
			attempt++; number = attempt; pending = STOP; holder = who; version++; asked = true
		:: else -> asked = false
		fi
	};
	if :: asked -> carry_out_stop(number, false) :: else fi
}

/* --- reconcile.reconcile: orphans (list, then read), ghosts (read, then inspect) --------------------------------- */
inline reconcile() {
#ifdef F_ORPHANS_BY_AN_OLD_READING
	op = state; got = resource;
	if
	:: got == 0 -> op = state; got = resource
	:: else
	fi;
	if
	:: got != 0 && (op == STOPPED || op == NONE) -> destroy(got)
	:: else
	fi;
#else
#ifndef F_ORPHANS_STAY
	got = resource;                                        /* provider.owned */
	d_step {                                               /* reconcile._judge */
		taken = (got != 0 && (state == NONE || state == STOPPED ||
			(pending == NOTHING && ref != 0 && ref != got)))
	};
	if :: taken -> destroy(got) :: else fi;
#endif
#endif
	d_step { seen = version; got = ref; taken = (state == ACTIVE && pending == NOTHING && ref != 0) };
	if
	:: taken && resource != got -> record_lost_at(seen, got)   /* inspect says gone */
#ifdef F_AN_OUTAGE_COUNTS_AS_GONE
	:: taken -> record_lost_at(seen, got)
#endif
	:: else
	fi
}

proctype worker(byte who) {
	byte number, got, seen; mtype op; bool taken, accepted, asked, thorough;
	{
	/* What may have happened by now: a lease ran out, the time to live is over, the resource went away. */
	atomic {
		if :: in_time = false :: skip fi;
		if :: expired = true :: skip fi;
		if :: resource != 0 -> resource = 0 :: skip fi
	};
	settle(who);
	reconcile()
	} MORTAL(who);
end:	atomic { over++; number = 0; got = 0; seen = 0; op = 0; taken = false; accepted = false; asked = false; thorough = false }
}

/* --- at last the weather is fine ------------------------------------------------------------------------------------ */
active proctype healer() {
	byte number, got, seen, round; mtype op; bool taken, accepted, asked, thorough;
	atomic {
		all++; run creator();
#ifndef NO_STOPPER
		all++; run stopper();
#endif
#ifndef NO_RUNNER
		all++; run runner();
#endif
		all++; run worker(WORKER);
#ifndef ONE_WORKER
		all++; run worker(WORKER + 1);
#endif
	};
	(over == all);
	d_step { healed = true; in_time = false };  /* nobody dies any more; every lease has run out */
	atomic {
		do
		:: round < 3 -> settle(HEALER); reconcile(); round++
		:: else -> break
		od
	};
	assert(pending == NOTHING && state != CREATING);       /* I3: an accepted command has its outcome */
	assert(execution != RUNNING);
	assert((state == ACTIVE) == (resource != 0));          /* I1: resources are the live sandboxes */
	assert(resource == 0 || resource == ref);
end:	skip
}
