#!/bin/sh
# Breaks each invariant that a model of loom's is there for, one at a time, in a copy of the source, and
# wants the models to find it: a quarter of an hour on an idle machine. See docs/TESTING.md.
#   tests/loom_breaks.sh [part of a break's name]
set -eu
cd "$(dirname "$0")/.."
tree=target/loom-breaks
# Each break is one build: a quick one, of what has changed.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=64 CARGO_PROFILE_RELEASE_DEBUG=false
export CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_INCREMENTAL=true
export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true
export RUSTFLAGS="--cfg loom" RUST_BACKTRACE=0
wanted=${1:-}
missed=0

copy() {
    mkdir -p "$tree"
    git ls-files -co --exclude-standard | while read -r file; do
        [ -f "$file" ] || continue
        cmp -s "$file" "$tree/$file" && continue
        mkdir -p "$tree/$(dirname "$file")"
        cp "$file" "$tree/$file"
    done
}

# name, file in runtime/src, a perl substitution that must change it, the models that are to find it
break_it() {
    case $1 in *"$wanted"*) ;; *) return 0 ;; esac
    copy
    file=$tree/runtime/src/$2
    # One that has two parts dies where a part changes nothing, and leaves the file as it was.
    perl -0pi -e "$3" "$file" || :
    if cmp -s "runtime/src/$2" "$file"; then
        echo "NOTHING TO BREAK $1: the pattern is not in $2"
        missed=$((missed + 1))
        return 0
    fi
    status=0
    (cd "$tree" && timeout 600 cargo test -q --release --target-dir ../loom-breaks-target -p coreloop --lib \
        "$4") >"$tree.log" 2>&1 || status=$?
    # A model that hits loom's limit of branches may be too large or turn in circles: that finds nothing.
    if [ "$status" = 0 ] || [ "$status" = 124 ] || ! grep -aq "^running [1-9]" "$tree.log" ||
        ! grep -aA1 'panicked at' "$tree.log" | grep -av -e '^--' -e 'panicked at' | grep -aqv 'exceeded maximum'; then
        echo "MISSED $1 (status $status, $tree.log)"
        cp "$tree.log" "$tree-$1.log"
        missed=$((missed + 1))
    else
        echo "found  $1: $(grep -aE 'panicked at' -A1 "$tree.log" | grep -av -e '^--' -e panicked -e 'exceeded maximum' |
            head -1 | cut -c1-90)"
    fi
    copy
}

break_it park-without-fence mailbox/cell.rs \
    's/publish_u32\(&self\.bell\.parked, 1\);/store_u32(&self.bell.parked, 1, Ordering::Relaxed);/' loom_park
break_it post-without-fence mailbox/cell.rs \
    's/publish_among\(&self\.bell\.posted, true\);/self.bell.posted.swap(true, Ordering::AcqRel);/' loom_park
break_it post-of-several-relaxed mailbox/cell.rs \
    's/publish_among\(&self\.bell\.posted, true\);/fence(Ordering::SeqCst); self.bell.posted.swap(true, Ordering::Relaxed); fence(Ordering::SeqCst);/ or die; s/self\.bell\.posted\.swap\(false, Ordering::AcqRel\)/self.bell.posted.swap(false, Ordering::Relaxed)/ or die' loom_queue
break_it post-before-the-wake mailbox/cell.rs \
    's/self\.map\.set\(slot\);\s+self\.post\(\);/self.post(); self.map.set(slot);/' loom_park
break_it post-taken-after-the-mail mailbox/park_loom_tests.rs \
    's/if cell\.take_post\(\) \{\s+cell\.map\.drain\(woken\);/if cell.has_post() { cell.map.drain(woken); cell.take_post();/' loom_park
break_it post-taken-by-load-and-store mailbox/cell.rs \
    's/self\.bell\.posted\.load\(Ordering::Relaxed\) && self\.bell\.posted\.swap\(false, Ordering::AcqRel\)/{ let was = self.bell.posted.load(Ordering::Relaxed); if was { self.bell.posted.store(false, Ordering::Relaxed) }; was }/' loom_
break_it post-of-closures-before-them mailbox/queue.rs \
    's/(let job = job;)/$1 self.cell.post();/ or die; s/drop\(open\);\s+self\.cell\.post\(\);/drop(open); self.cell.unpark();/ or die' loom_park_neither
break_it park-without-second-look mailbox/park_loom_tests.rs \
    's/if !cell\.has_post\(\) \{/if cell.has_post() || true {/' loom_park
break_it map-sets-downwards mailbox/wake_map.rs \
    's/( +segment\.summary\[w \/ BITS\]\.fetch_or[^;]+;)\n( +self\.dirty\[s[^;]+;)/$2\n$1/' loom_park
break_it map-looks-before-it-clears mailbox/wake_map.rs \
    's/bits\(segment\.words\[w\]\.swap\(0, Ordering::AcqRel\)\)/bits({ let v = segment.words[w].load(Ordering::Acquire); segment.words[w].store(0, Ordering::Release); v })/' loom_park
break_it map-relaxed-setter mailbox/wake_map.rs \
    's/fetch_or\(bit, Ordering::AcqRel\)/fetch_or(bit, Ordering::Relaxed)/' loom_park_a_wake_brings
break_it map-relaxed-owner mailbox/wake_map.rs \
    's/segment\.words\[w\]\.swap\(0, Ordering::AcqRel\)/segment.words[w].swap(0, Ordering::Relaxed)/' loom_park_a_wake_brings
break_it close-does-not-wait mailbox/cell.rs \
    's/while self\.cell\.senders\.sending\.load\(LOOK\) != 0/while false/' loom_close
break_it sender-counts-itself-late mailbox/cell.rs \
    's/publish_one_more\(&self\.senders\.sending\);(\s+)(if self\.send_message\(\))/let early = self.wake_fd.load(LOOK);$1publish_one_more(&self.senders.sending);$1if early >= 0 { system::write_event(early); }$1$2/' loom_close
break_it sender-leaves-relaxed mailbox/cell.rs \
    's/sending\.fetch_sub\(1, Ordering::SeqCst\)/sending.fetch_sub(1, Ordering::Relaxed)/' loom_close
break_it close-ring-forgets-the-ring mailbox/cell.rs \
    's/(fn close_ring\(&self\) \{)\s+publish_i32[^;]+;/$1/' loom_close
break_it queue-push-does-not-wake mailbox/queue.rs \
    's/drop\(open\);\s+self\.cell\.post\(\);/drop(open);/' loom_queue
break_it queue-news-before-the-closure mailbox/queue.rs \
    's/(let job = job;)/$1 self.any.store(true, Ordering::Release); self.cell.post();/ or die; s/(open\.jobs\.push_back\(job\);\s+\}\s+\})\s+self\.any\.store[^;]+;\s+drop\(open\);\s+self\.cell\.post\(\);/$1/ or die' loom_queue_a_push
break_it queue-close-keeps-what-waits mailbox/queue.rs \
    's/wake_all\(open\.waiting\.into_values\(\)\);/std::mem::forget(open.waiting);/ or die; s/(fn take.*?)wake_all\(waiting\);/$1std::mem::forget(waiting);/s or die' loom_queue_room
break_it queue-close-leaves-it-open mailbox/queue.rs \
    's/let Some\(open\) = lock\.take\(\)/let Some(open) = lock.as_mut().map(std::mem::take)/' loom_queue
break_it ring-stamp-relaxed mailbox/ring.rs \
    's/publish\(&self\.slot\(sent\)\.stamp, sent\.wrapping_add\(1\)\);/self.slot(sent).stamp.store(sent.wrapping_add(1), Ordering::Relaxed);/' loom_ring
break_it ring-stamp-not-published mailbox/ring.rs \
    's/publish\(&self\.slot\(sent\)\.stamp, sent\.wrapping_add\(1\)\);/self.slot(sent).stamp.store(sent.wrapping_add(1), Ordering::Release);/' loom_
# No break: the stamps of a batch but its first one relaxed. The consumer takes in order, so before it takes
# any of these it has acquired the first one's stamp, which is published after they and their values were
# written. Nor is one: the stamps in the order of the positions. All are stored before the look at who waits.
break_it ring-take-relaxed mailbox/ring.rs \
    's/self\.ring\.holds\(self\.head, Ordering::Acquire\)/self.ring.holds(self.head, Ordering::Relaxed)/' loom_ring
break_it ring-head-relaxed mailbox/ring.rs \
    's/publish\(&self\.ring\.head\.0, self\.head\);/self.ring.head.0.store(self.head, Ordering::Relaxed);/' loom_ring
break_it ring-room-relaxed mailbox/ring.rs \
    's/head\.0\.load\(Ordering::Acquire\)/head.0.load(Ordering::Relaxed)/ or die; s/self\.ring\.head\.0\.load\(LOOK\)/self.ring.head.0.load(Ordering::Relaxed)/ or die' loom_ring
break_it ring-sends-without-lock mailbox/ring.rs \
    's/while put\.sending\.swap\(true, Ordering::Acquire\)/while false/' loom_ring_what_two
break_it ring-send-lock-relaxed mailbox/ring.rs \
    's/(put\.sending, false, Ordering::)Release/$1Relaxed/' loom_ring
break_it ring-gone-not-looked-at mailbox/ring.rs \
    's/self\.consumer_gone\.load\(LOOK\)\n    \}/false\n    }/' loom_ring
break_it ring-sweep-without-second-look mailbox/ring.rs \
    's/if !self\.holds\(head, LOOK\) \{/if true {/' loom_ring
break_it ring-sweep-without-lock mailbox/ring.rs \
    's/if self\.sweeping\.swap\(true, Ordering::SeqCst\) \{/if false {/' loom_ring
break_it ring-consumer-goes-silently mailbox/ring.rs \
    's/(gone\.store\(true, Ordering::Release\);)\s+self\.ring\.producer\(\)\.wake\(\);/$1/' loom_ring
break_it ring-producer-goes-silently mailbox/ring.rs \
    's/(gone\.store\(true, Ordering::Release\);)\s+self\.ring\.consumer\(\)\.wake\(\);/$1/' loom_
break_it waiter-set-not-published mailbox/waiter.rs \
    's/publish_u64\(&self\.now\.who, name\(core, slot\)\);/self.now.who.store(name(core, slot), Ordering::Relaxed);/' loom_watch
break_it waiter-stays-with-the-first-core mailbox/waiter.rs \
    's/if self\.watcher\.0\.load\(Ordering::Relaxed\) != watcher \{/if self.watcher.0.load(Ordering::Relaxed) == NOBODY {/' loom_watch
# No break: the watcher by a plain store. What is published right after it, who waits, brings a fence in loom; by the
# rules of the language it has to be published itself.
break_it waker-set-not-published mailbox/waiter.rs \
    's/publish_u64\(&self\.now\.who, BY_WAKER\);/self.now.who.store(BY_WAKER, Ordering::Relaxed);/' loom_ring
# No break: a waker that is announced before it is there. Who finds none takes the lock before it is put, after
# having published; so the last look of who waits, which comes after the put, sees what was published.
break_it wake-without-fence mailbox/waiter.rs \
    's/(fn wake\(&self\) \{)\s+fence\(Ordering::SeqCst\);/$1/' loom_
break_it remote-end-wakes-nobody handle.rs \
    's/self\.ended\.notify_all\(\);\s+if let Some\(waker\) = waker \{\s+wake\(waker\);/if let Some(waker) = waker { drop(waker);/' loom_remote
break_it stop-registers-too-late runtime.rs \
    's/if !registered \{(.*?)\n        \}\n(        if stop\.asked\(\) \{.*?\n        \}\n)/$2        if !registered {$1\n        }\n/s' loom_stop
break_it blocking-promise-lost-by-a-thread blocking/pool.rs \
    's/Some\(\(job, self\.promise\(limits\)\)\)/Some((job, None))/' loom_blocking
break_it blocking-promise-lost blocking/pool.rs \
    's/let next = state\.promise\(self\.shared\.limits\);/let next: Option<Waker> = None;/' loom_blocking
break_it blocking-close-tells-no-thread blocking/pool.rs \
    's/(drop\(state\);)\s+self\.work\.notify_all\(\);\s+(for \(_, job\))/$1 $2/' loom_blocking
break_it blocking-served-by-nobody blocking/pool.rs \
    's/if handed == Handed::Served \{\s+self\.shared\.work\.notify_one\(\);\s+\}//' loom_blocking
break_it blocking-a-thread-goes-by-an-old-look blocking/worker.rs \
    's/shared\.leave\(state\);/drop(state); shared.one_less();/' loom_blocking
break_it signals-taken-all-at-once sys/signals.rs \
    's/self\.0\.fetch_and\(!\(1 << lowest\), Ordering::AcqRel\)/self.0.swap(0, Ordering::AcqRel)/' loom_signals
break_it shutdown-the-last-is-not-told shutdown/word.rs \
    's/(state\.told\.serving -= 1;)\s+if state\.told\.serving == 0 \{\s+wake_all\(state\);\s+\}/$1/' loom_shutdown
break_it shutdown-begin-is-not-told shutdown/word.rs \
    's/(told\.times = Some\(times\);)\s+wake_all\(state\);/$1/' loom_shutdown
break_it shutdown-haste-is-not-told shutdown/word.rs \
    's/(map_or\(times, earlier\)\);)\s+wake_all\(state\);/$1/' loom_shutdown
break_it sample-filled-relaxed sys/sample.rs \
    's/(number << 2 \| FILLED, Ordering::)Release/$1Relaxed/' loom_sample
break_it sample-withdraws-what-is-begun sys/sample.rs \
    's/self\.state\.compare_exchange\(asked, idle, Ordering::Relaxed, Ordering::Relaxed\)\.is_ok\(\)/self.state.swap(idle, Ordering::AcqRel) == asked/' loom_sample
break_it sample-answers-what-is-not-asked sys/sample.rs \
    's/(fn begin\(&self, number: u64\) -> Option<[^\n]+\{\n)/$1 let number = if self.state.load(Ordering::Relaxed) & 3 == ASKED { self.state.load(Ordering::Relaxed) >> 2 } else { number };\n/' loom_sample
break_it sample-asks-relaxed sys/sample.rs \
    's/(number << 2 \| ASKED, Ordering::)Release/$1Relaxed/' loom_sample
break_it metrics-park-looked-at-first metrics/mod.rs \
    's/( +let mut counters = Counters::read\(&self\.cells\);\n)(.*?)( +let parked_at = self\.parked_at\.load\(Ordering::)Relaxed(\);\n)/$3Acquire$4$1/s' loom_metrics
break_it metrics-park-counts-relaxed metrics/mod.rs \
    's/(before\.wrapping_add\(took\), Ordering::)Release/$1Relaxed/' loom_metrics
break_it stall-thread-ends-between-two-looks stall/teller.rs \
    's/(let next = state\.waiting\.pop_front\(\);)\n( +)state\.running = next\.is_some\(\);/$1\n$2drop(state);\n$2if next.is_none() { self.lock().running = false; }/' loom_stall
break_it stall-thread-is-started-twice stall/teller.rs \
    's/!std::mem::replace\(&mut state\.running, true\)/{ state.running = true; state.waiting.len() == 1 }/' loom_stall

rm -rf "$tree"
[ "$missed" = 0 ] || { echo "$missed not found"; exit 1; }
