package upgradebed

import (
	"flag"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// The test binary is the node proxies, too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == ChildArg {
		if err := RunChild(os.Stdin, os.Stdout, os.Stderr); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestProcessesHandOver: one process takes over what another has open, whichever of the two is newer.
func TestProcessesHandOver(t *testing.T) {
	// The nodes' instances start by turns: on one the newer build follows the older, on the other the older the newer.
	const idle, streams = 400, 50 // benchl4 has more
	r, err := Run(t.Context(), Options{
		Idle: idle, Streams: streams, Conversations: 4, Tap: true, Versions: [][2]uint64{{1, 1}, {1, 2}, {1, 2}, {1, 1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Dropped+r.Changed != 0 {
		t.Errorf("%d dropped, %d changed, the first: %v", r.Dropped, r.Changed, r.First)
	}
	overheard(t, r.Wire, 4)
	// At least all that is idle and streaming is handed over by both old instances, in tunnels.
	if n := strings.Count(r.Log, "an old instance has handed over"); n != 2 {
		t.Errorf("%d instances have handed over", n)
	}
	if t.Failed() {
		t.Log(r.Log)
	}
	t.Logf("%d idle, %d streaming, %d requests; longest gap %s, an old instance leaves within %s", idle, streams, r.Requests, r.Longest, r.Leaving)
}

// TestTheTapHearsPlaintext: pods without tunnels are overheard, so that of others it means something when nothing is. What they have open
// is handed over all the same.
func TestTheTapHearsPlaintext(t *testing.T) {
	r, err := Run(t.Context(), Options{Plain: true, Idle: 20, Streams: 5, Conversations: 4, Tap: true})
	if err != nil {
		t.Fatal(err)
	}
	if r.Dropped+r.Changed != 0 {
		t.Errorf("%d dropped, %d changed, the first: %v", r.Dropped, r.Changed, r.First)
	}
	if n := strings.Count(r.Log, "an old instance has handed over"); n != 2 {
		t.Errorf("%d instances have handed over", n)
	}
	for n, f := range r.Wire {
		if f.Tunnelled > 0 || f.Elsewhere[8080] == 0 || f.Elsewhere[8081] == 0 || !slices.Contains(f.Readable, idleWords) || !slices.Contains(f.Readable, saying[:10]) {
			t.Errorf("phase %d: %+v", n, f)
		}
	}
	if t.Failed() {
		t.Log(r.Log)
	}
}

var older = flag.String("older", "", "this package's test binary as an older commit builds it, for TestAnOlderBuildHandsOver; see make upgrade-skew")

// TestAnOlderBuildHandsOver: what an older commit's build has open goes on in this one, and comes back.
func TestAnOlderBuildHandsOver(t *testing.T) {
	if *older == "" {
		t.Skip("-older says nothing: there is no older build here")
	}
	// On one node the older build is followed by this one, on the other this one by the older; then the other way round.
	const rounds = 2
	r, err := Run(t.Context(), Options{
		Idle: 100, Streams: 10, Conversations: 4, Rounds: rounds, Tap: true, Programs: []string{*older, "", "", *older, *older, ""},
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Dropped+r.Changed != 0 {
		t.Errorf("%d dropped, %d changed, the first: %v", r.Dropped, r.Changed, r.First)
	}
	if n := strings.Count(r.Log, "an old instance has handed over"); n != 2*rounds || strings.Count(r.Log, "refused=0") != n {
		t.Errorf("%d instances have handed over all that they had", n)
	}
	overheard(t, r.Wire, 2*rounds+2)
	if t.Failed() {
		t.Log(r.Log)
	}
	t.Logf("%d requests; longest gap %s, an old instance leaves within %s", r.Requests, r.Longest, r.Leaving)
}

// TestWhatIsNotUnderstoodDrains: instances without a common version leave each other alone; new connections fare well.
func TestWhatIsNotUnderstoodDrains(t *testing.T) {
	// The drain is longer than any request takes.
	r, err := Run(t.Context(), Options{Idle: 3, Streams: 2, Drain: 5 * time.Second, Versions: [][2]uint64{{1, 1}, {2, 2}, {2, 2}, {1, 1}}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Dropped-r.DroppedRequests == 0 || !strings.Contains(r.Log, "understands versions") {
		t.Error("connections went on between instances that do not understand each other")
	}
	if r.DroppedRequests > 0 {
		t.Errorf("%d requests dropped", r.DroppedRequests)
	}
	if t.Failed() {
		t.Log(r.Log)
	}
}
