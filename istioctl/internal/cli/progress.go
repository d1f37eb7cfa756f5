package cli

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// patience is how long something takes before a person is told of it.
const patience = time.Second

// Progress tells a person what is waited for, in one line that goes away.
type Progress struct {
	out io.Writer

	mu    sync.Mutex // guards the fields below and the line
	next  int
	doing map[int]string
	shown bool
}

// NewProgress returns one that writes to a terminal; nil, which says nothing, when out is none.
func NewProgress(out io.Writer) *Progress {
	if !IsTerminal(out) {
		return nil
	}
	return &Progress{out: out, doing: map[int]string{}}
}

// Begin says what is being done; what it returns, that it is done.
func (p *Progress) Begin(what string) (done func()) {
	if p == nil {
		return func() {}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	id := p.next
	p.doing[id] = what
	timer := time.AfterFunc(patience, func() { p.show(id) })
	return func() {
		timer.Stop()
		p.end(id)
	}
}

func (p *Progress) show(id int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	what, still := p.doing[id]
	if !still {
		return
	}
	if more := len(p.doing) - 1; more > 0 {
		what = fmt.Sprintf("%s, and %d more", what, more)
	}
	fmt.Fprintf(p.out, "\r\x1b[K… %s", what)
	p.shown = true
}

func (p *Progress) end(id int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.doing, id)
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}

// Progress is where commands tell what they wait for.
func (g *Globals) Progress() *Progress { return g.progress }
