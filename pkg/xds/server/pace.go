package server

import "time"

// How publications that come one after the other are put together.
const (
	// paceLimit is the longest that a publication waits for others. It is below what people notice and what certificates, leases and
	// probes are timed by, and long enough for two of the changes that come at 50 per second, give or take a little.
	paceLimit = 23 * time.Millisecond
	// paceQuiet without a publication, and the next one is alone; paceForget, and it is the first again.
	paceQuiet  = 2 * paceUsual
	paceForget = time.Second
	// paceUsual is the longest usual time between publications with which one waits: above the limit, as those that come at random often
	// come sooner than that.
	paceUsual = 25 * time.Millisecond
	// paceStreams is from how many streams on a publication may wait: what it costs to write to fewer is not worth any waiting.
	paceStreams = 16
	// paceEvidence is how many publications come, paceUsual apart at most, before it is tried whether they come by themselves, and
	// paceEvidenceMost how many after trials in vain.
	paceEvidence     = 32
	paceEvidenceMost = 128
	// paceTrust is how often in a row waiting may have been in vain until it is given up.
	paceTrust = 5
)

// pace decides which publications of a type are written at once, and which wait for those that follow. It is pure: who drives it tells
// the time, and keeps the streams that are held.
//
// To write to many streams costs the same whether it is one change or ten, so changes that keep coming are worth putting together. One
// that comes alone is not to wait; neither is one that somebody makes after having seen that the one before has arrived, however quick
// they are: it would come later by as much as that one waits, and nothing would ever go together. By their rate alone those cannot be
// told from changes that come whatever is done with them. So it is tried now and then: one stream out of many is held for little more
// than the usual time between two publications. If another comes meanwhile, publications wait from then on, all streams together, until
// as many have come as do within the limit, or until the limit; for as long as others do come.
type pace struct {
	last  time.Time     // of the latest publication
	gap   time.Duration // between publications, smoothed; that before the latest one is paceQuiet at most. 0 is not known
	trust int           // above 0, publications wait; it falls with each that waited in vain
	left  int           // publications until the next trial
	next  int           // what left starts from
	vain  time.Duration // gap when waiting was in vain last; 0 is never

	held held
	size int // publications that are held
	want int // how many are to be
}

// held says of which streams, of those that a publication concerns.
type held int

const (
	heldNone held = iota
	heldOne       // a trial
	heldAll
)

// pacing is what a publication asks its driver to do, in this order.
type pacing struct {
	// release says that what is held is to be written with this publication.
	release bool
	hold    held
	// arm is when expire is to be called, if nothing has been released until then; 0 is not at all.
	arm time.Duration
}

// publish takes note of a publication that concerns so many streams.
func (p *pace) publish(now time.Time, streams int) pacing {
	if streams < paceStreams {
		return pacing{}
	}
	alone := p.measure(now)
	switch p.held {
	case heldOne: // they do come by themselves
		p.trust = 1
		p.release()
		return pacing{release: true}
	case heldAll:
		if p.size++; p.size < p.want {
			return pacing{hold: heldAll}
		}
		p.worked()
		p.release()
		return pacing{release: true}
	}
	switch {
	case alone || p.gap > paceUsual:
		return pacing{}
	case p.trust > 0:
		p.held, p.size, p.want = heldAll, 1, max(2, 1+int(paceLimit/max(p.gap, 1)))
		return pacing{hold: heldAll, arm: paceLimit}
	}
	if p.left--; p.left > 0 {
		return pacing{}
	}
	p.held, p.size = heldOne, 1
	return pacing{hold: heldOne, arm: min(paceLimit, p.gap+p.gap/2)}
}

// expire ends the time for which streams are held: they are to be written to.
func (p *pace) expire() {
	switch {
	case p.held == heldAll && p.size > 1:
		p.worked()
	case p.held == heldAll:
		if p.trust--; p.trust == 0 {
			p.inVain()
		}
	case p.held == heldOne:
		p.inVain()
	}
	p.release()
}

// measure keeps the usual time between publications, and reports whether there has been none for a while.
func (p *pace) measure(now time.Time) (alone bool) {
	since := now.Sub(p.last)
	first := p.last.IsZero() || since > paceForget
	p.last = now
	if first {
		p.gap, p.vain, p.trust, p.next, p.left = 0, 0, 0, paceEvidence, paceEvidence
		return true
	}
	if gap := min(since, paceQuiet); p.gap == 0 {
		p.gap = gap
	} else {
		p.gap += (gap - p.gap) / 16
	}
	// These are others, if the usual time is that without the one that waited.
	if p.vain > 0 && p.gap > 2*p.vain && p.left <= p.next-paceEvidence {
		p.vain, p.next, p.left = 0, paceEvidence, 0
	}
	return since > paceQuiet
}

func (p *pace) release() { p.held, p.size, p.want = heldNone, 0, 0 }

func (p *pace) worked() { p.trust, p.next = min(p.trust+1, paceTrust), paceEvidence }

// inVain makes the next trial come later, unless publications come at another rate.
func (p *pace) inVain() {
	p.next = min(2*p.next, paceEvidenceMost)
	p.left, p.vain = p.next, p.gap
}
