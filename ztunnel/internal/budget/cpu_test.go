package budget

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestApportion(t *testing.T) {
	for _, tt := range []struct {
		name      string
		spent     time.Duration
		estimates []time.Duration
		want      []time.Duration
		rest      time.Duration
	}{
		{"nobody is there", 100, nil, []time.Duration{}, 100},
		{"nobody works", 100, []time.Duration{0, 0}, []time.Duration{0, 0}, 100},
		{"nothing was spent", 0, []time.Duration{5, 0}, []time.Duration{0, 0}, 0},
		{"estimated right", 30, []time.Duration{10, 0, 20}, []time.Duration{10, 0, 20}, 0},
		{"estimated too high", 3, []time.Duration{10, 20}, []time.Duration{1, 2}, 0},
		{"estimated too low", 90, []time.Duration{10, 20}, []time.Duration{30, 60}, 0},
		{"spent for something else", 1000, []time.Duration{10, 20}, []time.Duration{40, 80}, 880},
		{"indivisible", 100, []time.Duration{10, 10, 10}, []time.Duration{33, 33, 33}, 1},
		{"a year of many processors", 1e18, []time.Duration{5e17, 5e17}, []time.Duration{5e17, 5e17}, 0},
	} {
		shares, rest := apportion(tt.spent, tt.estimates)
		if !slices.Equal(shares, tt.want) || rest != tt.rest {
			t.Errorf("%s: %d and %d left, want %d and %d", tt.name, shares, rest, tt.want, tt.rest)
		}
	}
}

// Whatever is divided: all of it is there afterwards, nothing is negative, who does nothing has nothing, and who does more has no less.
func TestApportionKeepsTheSum(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		spent := time.Duration(random.Int64N(1 << random.IntN(60)))
		estimates := make([]time.Duration, random.IntN(20))
		for n := range estimates {
			estimates[n] = time.Duration(random.Int64N(1 << random.IntN(50)))
		}
		slices.Sort(estimates)
		shares, rest := apportion(spent, estimates)
		sum := rest
		for n, share := range shares {
			sum += share
			if share < 0 || share > mostScale*estimates[n] || n > 0 && share < shares[n-1] {
				t.Fatalf("%d of %d for %d", shares, spent, estimates)
			}
		}
		if sum != spent || rest < 0 {
			t.Fatalf("%d and %d left of %d for %d: the sum is %d", shares, rest, spent, estimates, sum)
		}
	}
}

// paid is what a workload has been charged.
func (a *Account) paid() time.Duration {
	a.node.mu.Lock()
	defer a.node.mu.Unlock()
	return a.cpu
}

func TestSettle(t *testing.T) {
	n := NewNode(Limits{Connections: 10, PerWorkload: 1})
	busy, quiet, leaver := n.Open(Name{"shop", "busy"}), n.Open(Name{"shop", "quiet"}), n.Open(Name{"shop", "leaver"})
	expect := func(when string, b, q, other time.Duration) {
		t.Helper()
		if busy.paid() != b || quiet.paid() != q || n.ledger.other != other {
			t.Errorf("%s: %v, %v and %v of others, want %v, %v and %v", when, busy.paid(), quiet.paid(), n.ledger.other, b, q, other)
		}
	}
	n.settle(time.Second)
	expect("before anybody works", 0, 0, time.Second)
	busy.Did(Work{Steps: 300})
	leaver.Did(Work{Steps: 100})
	leaver.Close()
	n.settle(time.Second + 4*time.Millisecond)
	expect("after one has left", 3*time.Millisecond, 0, time.Second+time.Millisecond)
	n.settle(0)
	expect("when nothing could be read", 3*time.Millisecond, 0, time.Second+time.Millisecond)
	if n.settle(2 * time.Second); quiet.paid() != 0 || busy.paid() != 3*time.Millisecond {
		t.Error("one that does nothing pays")
	}
	if !quiet.Admit() || quiet.Admit() {
		t.Fatal("one connection is allowed")
	}
	n.settle(2*time.Second + connectionCost + refusalCost)
	if quiet.paid() != connectionCost+refusalCost {
		t.Errorf("a connection and a refusal cost %v", quiet.paid())
	}
}

// Many small steps cost more than few large ones, and encryption more than none.
func TestCost(t *testing.T) {
	for _, tt := range []struct{ less, more Work }{
		{Work{PlainBytes: 1 << 20, Steps: 1}, Work{TunnelBytes: 1 << 20, Steps: 1}},
		{Work{TunnelBytes: 1 << 20, Steps: 16}, Work{TunnelBytes: 1 << 20, Steps: 1024}},
		{Work{}, Work{Handshakes: 1}},
	} {
		if tt.less.cost() >= tt.more.cost() {
			t.Errorf("%+v costs %v, %+v %v", tt.less, tt.less.cost(), tt.more, tt.more.cost())
		}
	}
}

// Two who scrape do not divide more often than bytes are reported.
func TestSettledNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, asked := NewNode(Limits{}), 0
		for range 60 {
			n.settleDue(func() time.Duration {
				asked++
				return time.Duration(asked) * time.Second
			})
			time.Sleep(time.Second)
		}
		if want := int(time.Minute / settleEvery); asked != want {
			t.Errorf("divided %d times in a minute, want %d", asked, want)
		}
		var none *Account
		none.Did(Work{Steps: 1}) // counts nothing
	})
}
