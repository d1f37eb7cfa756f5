package proxy

import "context"

// gather reads the body, before it is known where it goes, until limit bytes of it are there or it ends. What was read is then sent
// as if it had not been; it is valid until prepare. False says that the exchange is given up.
func (b *requestBody) gather(limit int) (got []byte, ended, ok bool) {
	if b.x.s.Ended() && !b.started {
		return nil, true, true
	}
	stop := context.AfterFunc(b.x.guard.waiting(), func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.changed.Broadcast()
	})
	defer stop()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.keep, b.limit = true, max(limit, b.limit)
	if b.started {
		b.changed.Broadcast()
	} else {
		b.started, b.pumping = true, true
		b.x.s.Gone() // from now on reads are another goroutine's
		go b.pump(true)
	}
	for len(b.kept) < limit && !b.ended && !b.failed {
		if b.x.guard.aborted() != causeNone {
			return nil, false, false
		}
		b.changed.Wait()
	}
	return b.kept, b.ended, !b.failed
}

// prepareGathered is prepare for a body of which something was read.
func (b *requestBody) prepareGathered(keep bool, limit int, mirrors []*mirror) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.limit, b.mirrors, b.forward, b.once = limit, mirrors, true, !keep
	for _, m := range mirrors {
		m.add(b.kept)
	}
	if b.ended {
		b.x.armTimeouts(b.doneAt, false)
		for _, m := range mirrors {
			m.finish(b.trailer)
		}
	}
}
