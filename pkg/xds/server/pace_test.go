package server

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

const ms = time.Millisecond

// paceRun is a run of publications with a clock of its own.
type paceRun struct {
	pace     pace
	streams  int
	now      time.Time
	deadline time.Time   // of what is held; zero is nothing
	held     []time.Time // publications that all streams wait for
	trials   int
	writes   int             // to all streams, or all but one
	waits    []time.Duration // of each publication, until it is written to all streams but one
	longest  time.Duration   // that one stream waited in a trial
	trialAt  time.Time
}

func newPaceRun(streams int) *paceRun {
	return &paceRun{streams: streams, now: time.Unix(1_000_000, 0)}
}

// publish is one that comes so long after what has been last.
func (r *paceRun) publish(after time.Duration) {
	r.until(r.now.Add(after))
	do := r.pace.publish(r.now, r.streams)
	if do.release {
		r.write()
	}
	if do.arm > 0 {
		r.deadline = r.now.Add(do.arm)
	}
	switch do.hold {
	case heldAll:
		r.held = append(r.held, r.now)
		return
	case heldOne:
		r.trials++
		r.trialAt = r.now
	}
	if !do.release {
		r.writes++
	}
	r.waits = append(r.waits, 0)
}

// until lets time pass.
func (r *paceRun) until(t time.Time) {
	if !r.deadline.IsZero() && !r.deadline.After(t) {
		r.now = r.deadline
		r.pace.expire()
		r.write()
	}
	r.now = t
}

// settle lets time pass until nothing is held.
func (r *paceRun) settle() {
	if !r.deadline.IsZero() {
		r.until(r.deadline)
	}
}

// write is of what is held.
func (r *paceRun) write() {
	if !r.trialAt.IsZero() {
		r.longest = max(r.longest, r.now.Sub(r.trialAt))
		r.trialAt = time.Time{}
	}
	if len(r.held) > 0 || r.deadline.IsZero() {
		r.writes++
	}
	for _, since := range r.held {
		r.waits = append(r.waits, r.now.Sub(since))
	}
	r.held, r.deadline = nil, time.Time{}
}

func (r *paceRun) waited() (n int, most time.Duration) {
	for _, w := range r.waits {
		if w > 0 {
			n++
		}
		most = max(most, w)
	}
	return n, most
}

func TestALonePublicationIsNotHeld(t *testing.T) {
	r := newPaceRun(1000)
	// Whatever has been before.
	for range 500 {
		r.publish(5 * ms)
	}
	r.settle()
	before := len(r.waits)
	for range 500 {
		r.publish(paceQuiet + ms)
	}
	if after := r.waits[before:]; len(after) != 500 || slices.Max(after) > 0 {
		t.Errorf("%d of 500 written, one after %v", len(after), slices.Max(after))
	}
}

func TestFewStreamsAreNotHeld(t *testing.T) {
	r := newPaceRun(paceStreams - 1)
	for range 1000 {
		r.publish(ms)
	}
	if n, _ := r.waited(); n > 0 || r.trials > 0 {
		t.Errorf("%d waited, %d trials", n, r.trials)
	}
}

func TestSteadyPublicationsGoTogether(t *testing.T) {
	const n = 2000
	random := rand.New(rand.NewPCG(1, 2))
	for _, c := range []struct {
		name string
		gap  func() time.Duration
		most float64 // writes for each publication
	}{
		{"50 per second", func() time.Duration { return 20 * ms }, 0.53},
		{"50 per second, not quite regular", func() time.Duration { return 17*ms + time.Duration(random.Int64N(int64(6*ms))) }, 0.55},
		{"50 per second, at random", func() time.Duration { return time.Duration(random.ExpFloat64() * float64(20*ms)) }, 0.75},
		{"200 per second", func() time.Duration { return 5 * ms }, 0.23},
		{"1000 per second", func() time.Duration { return ms }, 0.06},
		{"30 per second: nothing would come in time", func() time.Duration { return 33 * ms }, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newPaceRun(50)
			for range n {
				r.publish(c.gap())
			}
			r.settle()
			if len(r.waits) != n {
				t.Fatalf("%d of %d written", len(r.waits), n)
			}
			held, most := r.waited()
			t.Logf("%.3f writes for each publication, %d waited, %v at most; %d trials", float64(r.writes)/n, held, most, r.trials)
			if share := float64(r.writes) / n; share > c.most {
				t.Errorf("%.3f writes for each publication, at most %.2f expected", share, c.most)
			}
			if most > paceLimit {
				t.Errorf("one waited %v", most)
			}
			if c.most == 1 && held > 0 {
				t.Errorf("%d waited for nothing", held)
			}
		})
	}
}

// TestPublicationsThatFollowOneAnotherAreNotHeld makes each when the one before has arrived: at every stream, or at one that is not held
// in a trial, which cannot be told from publications that come by themselves until one has waited.
func TestPublicationsThatFollowOneAnotherAreNotHeld(t *testing.T) {
	const n = 2000
	for _, c := range []struct {
		name  string
		every bool // the next one comes when every stream has the one before
		held  int
	}{
		{"at every stream", true, 0},
		{"at one stream", false, n / paceEvidenceMost * 3 / 2},
	} {
		for _, work := range []time.Duration{ms / 2, 2 * ms, 5 * ms, 15 * ms} {
			t.Run(c.name+" "+work.String(), func(t *testing.T) {
				r := newPaceRun(50)
				for range n {
					r.publish(work)
					if c.every || len(r.held) > 0 {
						r.settle()
					}
				}
				held, most := r.waited()
				if held > c.held || most > paceLimit {
					t.Errorf("%d waited, %v at most", held, most)
				}
				if r.trials > n/paceEvidenceMost+4 {
					t.Errorf("%d trials", r.trials)
				}
				if r.longest > 2*work {
					t.Errorf("a stream waited %v in a trial", r.longest)
				}
			})
		}
	}
}

// TestWaitingIsGivenUp: publications that come by themselves turn into such that each follow the one before.
func TestWaitingIsGivenUp(t *testing.T) {
	r := newPaceRun(50)
	for range 500 {
		r.publish(20 * ms)
	}
	r.settle()
	before, _ := r.waited()
	for range paceEvidence {
		r.publish(5 * ms)
		r.settle()
	}
	if after, _ := r.waited(); after-before > paceTrust {
		t.Errorf("%d waited in vain", after-before)
	}
}

// TestAnotherRateIsTriedSoon: trials in vain with publications that each follow the one before say nothing of slower ones.
func TestAnotherRateIsTriedSoon(t *testing.T) {
	r := newPaceRun(50)
	for range 500 {
		r.publish(4 * ms)
		r.settle()
	}
	trials := r.trials
	for range 2 * paceEvidence {
		r.publish(20 * ms)
	}
	if held, _ := r.waited(); r.trials == trials || held == 0 {
		t.Errorf("%d trials, %d waited", r.trials-trials, held)
	}
}

func TestTheLastOfManyIsWrittenInTime(t *testing.T) {
	r := newPaceRun(50)
	for range 200 {
		r.publish(20 * ms)
	}
	r.publish(20 * ms)
	r.settle()
	if _, most := r.waited(); len(r.waits) != 201 || most > paceLimit {
		t.Errorf("%d written, one after %v", len(r.waits), most)
	}
}

// pacedStreams are streams that follow everything of a topic.
func pacedStreams(n int) (*topic, []*stream) {
	s := New(Config{})
	t := s.topic(nil, "a type")
	streams := make([]*stream, n)
	for i := range streams {
		streams[i] = &stream{server: s, wake: make(chan struct{}, 1), topics: map[*topic]struct{}{}}
		t.follow(streams[i], nil, &kept{}, true)
	}
	return t, streams
}

// woken counts streams that have been, and makes them wait again.
func woken(streams []*stream) (n int) {
	for _, st := range streams {
		select {
		case <-st.wake:
			n++
		default:
		}
	}
	return n
}

func TestHeldStreamsAreWokenTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		topic, streams := pacedStreams(20)
		s := streams[0].server
		publish := func() { s.Publish(topic.typeURL, []Resource{{Name: "a"}}, nil) }
		for range paceEvidence {
			time.Sleep(20 * ms)
			publish()
			if n := woken(streams); n != 20 {
				t.Fatalf("%d woken at once", n)
			}
		}
		time.Sleep(20 * ms)
		publish() // in it one is held
		if n := woken(streams); n != 19 {
			t.Fatalf("%d woken in a trial", n)
		}
		time.Sleep(20 * ms)
		publish()
		if n := woken(streams); n != 20 {
			t.Fatalf("%d woken when the trial is over", n)
		}
		time.Sleep(20 * ms)
		began := time.Now()
		publish()
		if n := woken(streams); n != 0 {
			t.Fatalf("%d woken at once", n)
		}
		gone := streams[19]
		topic.leave(gone)
		time.Sleep(paceLimit)
		synctest.Wait()
		if n := woken(streams); n != 19 {
			t.Fatalf("%d woken at the limit", n)
		}
		if since := streams[0].takeSince(); since.After(began) {
			t.Errorf("it is told to have something since %v after it had", since.Sub(began))
		}
		if len(topic.paced.streams) > 0 || topic.paced.timer != nil {
			t.Error("some are held still")
		}
	})
}
