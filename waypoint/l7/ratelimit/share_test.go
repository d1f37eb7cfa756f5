package ratelimit

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// demand is how often a client asks, per second, from when to when.
type demand struct {
	rate     float64
	from, to time.Duration
}

// run lets clients ask, evenly but for a little chance, and returns how many requests per second of each have passed since warm.
func run(rate rate, clients []demand, warm, end time.Duration) []float64 {
	s := newShares(&rate, 100)
	var b bucket
	rnd := rand.New(rand.NewPCG(1, 2))
	type event struct {
		at  time.Duration
		who int
	}
	var events []event
	for i, c := range clients {
		to := min(c.to, end)
		if c.to == 0 {
			to = end
		}
		for at := c.from; at < to; {
			events = append(events, event{at, i})
			at += time.Duration((.5 + rnd.Float64()) / c.rate * float64(time.Second))
		}
	}
	slices.SortFunc(events, func(a, b event) int { return int(a.at - b.at) })
	passed := make([]float64, len(clients))
	for _, e := range events {
		if ok, _ := s.take([]byte{byte(e.who)}, &b, int64(e.at)); ok && e.at >= warm {
			passed[e.who]++
		}
	}
	for i := range passed {
		passed[i] /= (end - warm).Seconds()
	}
	return passed
}

func TestFairShares(t *testing.T) {
	t.Parallel()
	hundred := newRate(100, 100, time.Second)
	for _, c := range []struct {
		name    string
		rate    rate
		clients []demand
		want    []float64
	}{
		{"one alone has all", hundred, []demand{{rate: 1000}}, []float64{100}},
		{"two that flood", hundred, []demand{{rate: 1000}, {rate: 500}}, []float64{50, 50}},
		{"one asks for less", hundred, []demand{{rate: 1000}, {rate: 20}}, []float64{80, 20}},
		{"three, as in the documentation", hundred, []demand{{rate: 10}, {rate: 60}, {rate: 1000}}, []float64{10, 45, 45}},
		{"enough for all", hundred, []demand{{rate: 30}, {rate: 40}}, []float64{30, 40}},
		{"just one too many", hundred, []demand{{rate: 40}, {rate: 90}}, []float64{40, 60}},
		{"ten", hundred, slices.Repeat([]demand{{rate: 300}}, 10), slices.Repeat([]float64{10}, 10)},
		{"who comes later", hundred, []demand{{rate: 1000}, {rate: 1000, from: 5 * time.Second}}, []float64{50, 50}},
		{"who has gone", hundred, []demand{{rate: 1000}, {rate: 1000, to: 5 * time.Second}}, []float64{100, 0}},
		{"little in a minute", newRate(60, 60, time.Minute), []demand{{rate: 5}, {rate: 5}}, []float64{.5, .5}},
	} {
		got := run(c.rate, c.clients, 10*time.Second+time.Duration(60*float64(time.Second)/c.rate.fill), 30*time.Second+time.Duration(150*float64(time.Second)/c.rate.fill))
		for i := range got {
			if off := math.Abs(got[i] - c.want[i]); off > c.rate.fill*.05 {
				t.Errorf("%s: %.1f, want %v", c.name, got, c.want)
				break
			}
		}
	}
}

// TestLevel: all together have no more than the rate, nobody gets less than an equal part unless it asks for less, and nothing is left
// over that somebody asks for.
func TestLevel(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 2000 {
		demands := make([]float64, 1+rnd.IntN(20))
		total := 0.0
		for i := range demands {
			demands[i] = rnd.ExpFloat64() * 50
			total += demands[i]
		}
		level := levelOf(demands, 100)
		given := 0.0
		for _, d := range demands {
			given += min(d, level)
		}
		if want := min(total, 100); math.Abs(given-want) > 1e-6 {
			t.Fatalf("%v: %f given at level %f, want %f", demands, given, level, want)
		}
		if level < 100/float64(len(demands))-1e-9 {
			t.Fatalf("%v: level %f", demands, level)
		}
	}
}

// fairFilter divides among the values of x-user.
func fairFilter(bucket string) string {
	return `{` + always + `"rate_limits":[{"actions":[{"generic_key":{"descriptor_key":"limit","descriptor_value":"all"}}]},
	 {"actions":[{"generic_key":{"descriptor_key":"` + FairKey + `","descriptor_value":"all"}},{"request_headers":{"header_name":"x-user","descriptor_key":"user","skip_if_absent":true}}]}],
	 "descriptors":[{"entries":[{"key":"limit","value":"all"}],"token_bucket":` + bucket + `}]}`
}

func TestFairFilter(t *testing.T) {
	t.Parallel()
	f := compile(t, fairFilter(bucketJSON(100, 100, "1s")))
	clients := []*client{newClient("x-user", "a"), newClient("x-user", "b"), newClient()}
	passed := make([]int, len(clients))
	for at := time.Duration(0); at < 20*time.Second; at += 2 * time.Millisecond {
		for i, c := range clients {
			if i == 2 && at%(100*time.Millisecond) != 0 {
				continue
			}
			v := c.check(f, start.Add(at))
			if v.Refused && v.Wait <= 0 {
				t.Fatalf("%d: refused without saying for how long", i)
			}
			if !v.Refused && at >= 10*time.Second {
				passed[i]++
			}
		}
	}
	if fmt.Sprint(passed) == "" || math.Abs(float64(passed[0]-450)) > 25 || math.Abs(float64(passed[1]-450)) > 25 || math.Abs(float64(passed[2]-100)) > 5 {
		t.Errorf("%v in ten seconds, want about 450, 450 and 100", passed)
	}
	next := compile(t, fairFilter(bucketJSON(100, 100, "1s")))
	next.Adopt(f)
	if next.descriptors[0].live != f.descriptors[0].live {
		t.Error("shares begin anew")
	}
}
