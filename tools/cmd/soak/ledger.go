package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// kept is how many stretches of losses are told.
	kept = 50
	// together is up to how long after the one before a loss of the same kind is of the same stretch.
	together = 10 * time.Second
	// echoes is how long after its end a change still counts as under way.
	echoes = 5 * time.Second
)

// ledger has what was sent, what was lost, and what changed meanwhile. Safe for concurrent use.
type ledger struct {
	begin time.Time
	tell  io.Writer // nil: nobody is told before the end
	// numbers are what losses of one kind differ in.
	numbers *regexp.Regexp

	messages, bytes, connections atomic.Int64
	// again are requests that were sent once more as a server closed their connection, idle until then, before they arrived.
	again atomic.Int64

	mu     sync.Mutex // guards the rest
	lost   int
	losses []*stretch
	under  map[string]time.Time // changes that are under way, since when
	ended  map[string]time.Time // when they last ended
	count  map[string]int       // how often they were made
}

// stretch is losses of one kind that came one soon after the other.
type stretch struct {
	first loss
	last  time.Duration // since the load began
	n     int
}

func (s stretch) String() string {
	if s.n == 1 {
		return s.first.String()
	}
	return fmt.Sprintf("%s, and %d like it until %.2fs", s.first, s.n-1, s.last.Seconds())
}

// loss is something that was sent and did not arrive, or not as it was sent.
type loss struct {
	at     time.Duration // since the load began
	what   string        // what was lost, and how far it came
	err    error
	during []string
}

func (l loss) String() string {
	return fmt.Sprintf("%8.2fs  %s: %v  [%s]", l.at.Seconds(), l.what, l.err, strings.Join(l.during, ", "))
}

func newLedger(tell io.Writer) *ledger {
	return &ledger{begin: time.Now(), tell: tell, numbers: regexp.MustCompile(`[0-9][0-9.:]*`), under: map[string]time.Time{}, ended: map[string]time.Time{}, count: map[string]int{}}
}

// carried takes note of a message that came back as it was sent.
func (l *ledger) carried(size int) {
	l.messages.Add(1)
	l.bytes.Add(int64(size))
}

// lose takes note of a loss, and of what is changing.
func (l *ledger) lose(what string, err error) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lost++
	one := loss{at: now.Sub(l.begin), what: what, err: err, during: l.changing(now)}
	l.add(one)
	if l.tell != nil {
		fmt.Fprintln(l.tell, "lost", one)
	}
}

// add puts a loss to those like it. Called with mu held.
func (l *ledger) add(one loss) {
	for _, s := range slices.Backward(l.losses) {
		if one.at-s.last <= together && l.alike(s.first, one) {
			s.last = one.at
			s.n++
			return
		}
	}
	if len(l.losses) < kept {
		l.losses = append(l.losses, &stretch{first: one, last: one.at, n: 1})
	}
}

// alike reports whether two losses differ in numbers only, such as those of connections, and in how far each had come.
func (l *ledger) alike(a, b loss) bool {
	kind := func(one loss) string { return l.numbers.ReplaceAllString(fmt.Sprint(one.what, ": ", one.err), "#") }
	return kind(a) == kind(b)
}

func (l *ledger) changing(now time.Time) (out []string) {
	for _, name := range slices.Sorted(maps.Keys(l.under)) {
		out = append(out, fmt.Sprintf("%s for %.1fs", name, now.Sub(l.under[name]).Seconds()))
	}
	for _, name := range slices.Sorted(maps.Keys(l.ended)) {
		if ago := now.Sub(l.ended[name]); ago < echoes && l.under[name].IsZero() {
			out = append(out, fmt.Sprintf("%s %.1fs ago", name, ago.Seconds()))
		}
	}
	return out
}

// change takes note of a change that make makes.
func (l *ledger) change(name string, make func() error) error {
	l.mu.Lock()
	l.under[name] = time.Now()
	l.count[name]++
	if l.tell != nil {
		fmt.Fprintf(l.tell, "%8.2fs  %s, number %d\n", time.Since(l.begin).Seconds(), name, l.count[name])
	}
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.under, name)
		l.ended[name] = time.Now()
	}()
	return make()
}

// total is how much was lost, and in which stretches, by when they began.
func (l *ledger) total() (lost int, told []stretch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.losses {
		told = append(told, *s)
	}
	slices.SortFunc(told, func(a, b stretch) int { return cmp.Compare(a.first.at, b.first.at) })
	return l.lost, told
}

// changes are how often each was made.
func (l *ledger) changes() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.count)
}
