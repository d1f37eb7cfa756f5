package why

import (
	"fmt"
	"io"
	"strings"
)

// Write prints a report for people.
func (r *Report) Write(out io.Writer) {
	what := ""
	if r.Question.Method != "" {
		what = " " + strings.ToUpper(r.Question.Method) + " " + orSlash(r.Question.Path)
	}
	fmt.Fprintf(out, "%s → %s%s\n", r.Question.From, r.Question.To, what)
	for i, h := range r.Hops {
		fmt.Fprintf(out, "\n%d. %s\n", i+1, h.Title)
		width := 0
		for _, f := range h.Facts {
			width = max(width, len(f.Name))
		}
		for _, f := range h.Facts {
			fmt.Fprintf(out, "   %-*s  %s%s\n", width, f.Name, f.Text, bracketed(f.Ref))
		}
		if h.Next != "" {
			fmt.Fprintf(out, "   → %s\n", h.Next)
		}
	}
	fmt.Fprintf(out, "\n%s: %s\n", strings.ToUpper(r.Verdict.Outcome)+share(r.Verdict.Share), sentence(r.Verdict.Cause))
	for _, ref := range r.Verdict.Refs {
		fmt.Fprintf(out, "  look at: %s\n", ref)
	}
	if r.Verdict.Remedy != "" {
		fmt.Fprintf(out, "  remedy: %s\n", r.Verdict.Remedy)
	}
	for _, f := range r.Warnings {
		fmt.Fprintf(out, "warning: %s%s\n", f.Text, bracketed(f.Ref))
		if f.Remedy != "" {
			fmt.Fprintf(out, "  remedy: %s\n", f.Remedy)
		}
	}
	r.writeReality(out)
	for _, n := range r.Notes {
		fmt.Fprintf(out, "note: %s\n", n)
	}
}

func (r *Report) writeReality(out io.Writer) {
	for _, p := range r.Proxies {
		mark := ""
		if p.Stale || len(p.Differs) > 0 {
			mark = "  ← what it does may differ"
		}
		fmt.Fprintf(out, "proxy %s: %s%s\n", p.Proxy, p.State, mark)
		for _, d := range p.Differs {
			fmt.Fprintf(out, "  %s\n", d)
		}
	}
	p := r.Probe
	switch {
	case p == nil:
	case p.Error != "":
		fmt.Fprintf(out, "probe: not sent: %s\n", p.Error)
	default:
		agrees := "as predicted"
		if !p.Agrees {
			agrees = "NOT as predicted"
		}
		fmt.Fprintf(out, "probe: %s (%s): %s\n", p.Answer, p.Command, agrees)
	}
}

func orSlash(path string) string {
	if path == "" {
		return "/"
	}
	return path
}

func share(percent int) string {
	if percent == 0 {
		return ""
	}
	return fmt.Sprintf(" (about %d %% of the connections or requests)", percent)
}

func bracketed(r *Ref) string {
	if r == nil {
		return ""
	}
	return "  [" + r.String() + "]"
}

func sentence(s string) string { return strings.TrimSuffix(s, ".") }
