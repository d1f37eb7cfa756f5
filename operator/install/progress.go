package install

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/isthmus-mesh/isthmus/operator/render"
)

// Progress tells a person what happens: a line for each component that is done and, on a terminal, what the present one waits for.
type Progress struct {
	out  io.Writer
	live bool
	now  func() time.Time

	mu   sync.Mutex // guards what follows
	last string     // the line that is rewritten
	said time.Time
}

// NewProgress returns a Progress that writes to out; live says that out is a terminal.
func NewProgress(out io.Writer, live bool) *Progress {
	return &Progress{out: out, live: live, now: time.Now}
}

// Title is what a component is called when it is done.
func Title(component string) string {
	switch component {
	case render.Base:
		return "Istio core installed ⛵️"
	case render.Pilot:
		return "Istiod installed 🧠"
	case render.IstiodRemote:
		return "Istiod remote installed 🛰️"
	case render.CNI:
		return "CNI installed 🪢"
	case render.Ztunnel:
		return "Ztunnel installed 🔒"
	case render.IngressGateways:
		return "Ingress gateways installed 🛬"
	case render.EgressGateways:
		return "Egress gateways installed 🛫"
	}
	return component + " installed"
}

// Started implements Report.
func (p *Progress) Started(component string) {
	p.rewrite("- Processing resources for " + component + ".")
}

// Waiting implements Report.
func (p *Progress) Waiting(component, what string) {
	line := fmt.Sprintf("- Processing resources for %s. Waiting for %s", component, what)
	if p.live {
		p.rewrite(line)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// In a log, only what lasts is worth a line.
	switch {
	case p.said.IsZero():
		p.said = p.now()
	case line != p.last && p.now().Sub(p.said) > 15*time.Second:
		p.last, p.said = line, p.now()
		fmt.Fprintln(p.out, line)
	}
}

// Done implements Report.
func (p *Progress) Done(component string) { p.say("✔ " + Title(component)) }

// Note implements Report.
func (p *Progress) Note(text string) { p.say("  " + text) }

// Finished says that all is done.
func (p *Progress) Finished(what string) { p.say("✔ " + what) }

// Failed ends the line that is rewritten, so that an error is not written into it.
func (p *Progress) Failed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live && p.last != "" {
		fmt.Fprintln(p.out)
	}
	p.last = ""
}

func (p *Progress) say(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.live && p.last != "" {
		fmt.Fprint(p.out, "\r\033[K")
	}
	p.last, p.said = "", time.Time{}
	fmt.Fprintln(p.out, line)
}

// rewrite replaces the line that the terminal shows last; it is cut where the terminal would break it.
func (p *Progress) rewrite(line string) {
	if !p.live {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if runes := []rune(line); len(runes) > 118 {
		line = string(runes[:117]) + "…"
	}
	if line != p.last {
		fmt.Fprint(p.out, "\r\033[K"+line)
		p.last = line
	}
}
