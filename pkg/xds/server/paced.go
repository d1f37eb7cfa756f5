package server

import (
	"maps"
	"time"
)

// paced is what pace is told and has decided. It is guarded by the topic's mu.
type paced struct {
	pace    pace
	streams map[*stream]time.Time // held, with when each has first had something to take up
	timer   *time.Timer           // of what is held; nil when nothing is
}

// pace returns which streams are to be woken now, and since when each has had something to take up, of those that a publication concerns
// and those that have been held before. The others are woken when their time has come.
func (t *topic) pace(concerned []*stream, now time.Time) map[*stream]time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	do := t.paced.pace.publish(now, len(concerned))
	wake := make(map[*stream]time.Time, len(concerned))
	if do.release {
		t.paced.release(wake)
	}
	if do.arm > 0 {
		t.hold(do.arm)
	}
	switch do.hold {
	case heldAll:
		t.paced.add(concerned, now)
		concerned = nil
	case heldOne:
		t.paced.add(concerned[:1], now)
		concerned = concerned[1:]
	}
	for _, st := range concerned {
		if _, known := wake[st]; !known {
			wake[st] = t.paced.take(st, now)
		}
	}
	return wake
}

// hold starts the time for which streams are held at most. Callers hold t.mu.
func (t *topic) hold(limit time.Duration) {
	var timer *time.Timer
	timer = time.AfterFunc(limit, func() {
		wake := map[*stream]time.Time{}
		t.mu.Lock()
		if t.paced.timer == timer { // else they have been released meanwhile
			t.paced.pace.expire()
			t.paced.release(wake)
		}
		t.mu.Unlock()
		for st, since := range wake {
			st.wakeUp(since)
		}
	})
	t.paced.timer = timer
}

// release moves what is held to those that are to be woken.
func (p *paced) release(wake map[*stream]time.Time) {
	p.timer.Stop()
	p.timer = nil
	maps.Copy(wake, p.streams)
	clear(p.streams)
}

// add holds streams, each since the first time that it is.
func (p *paced) add(streams []*stream, now time.Time) {
	if p.streams == nil {
		p.streams = make(map[*stream]time.Time, len(streams))
	}
	for _, st := range streams {
		if _, held := p.streams[st]; !held {
			p.streams[st] = now
		}
	}
}

// take returns since when a stream has had something to take up, which it does now.
func (p *paced) take(st *stream, now time.Time) time.Time {
	since, held := p.streams[st]
	if !held {
		return now
	}
	delete(p.streams, st)
	return since
}
