package predict

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/why"
	"github.com/isthmus-mesh/isthmus/pilot/simulate"
)

// Outcome is how a request fares.
type Outcome struct {
	Outcome string `json:"outcome"`
	Status  int    `json:"status,omitempty"`
	// Share is how many percent of the requests it is about, 0 all.
	Share int    `json:"share,omitempty"`
	Cause string `json:"cause"`
	// Route, Clusters and Reached are where it goes; Through are the proxies.
	Route    string   `json:"route,omitempty"`
	Clusters string   `json:"clusters,omitempty"`
	Through  []string `json:"through,omitempty"`
	Reached  []string `json:"reached,omitempty"`
	// Refs are the objects behind the cause.
	Refs []*why.Ref `json:"refs,omitempty"`
}

// Request is one that fares otherwise after the change.
type Request struct {
	why.Question
	Before Outcome `json:"before"`
	After  Outcome `json:"after"`
}

// Prediction is what a change does.
type Prediction struct {
	Proxies  []Proxy   `json:"proxies"`
	Requests []Request `json:"requests"`
	// Asked is how many requests were followed.
	Asked int      `json:"asked"`
	Notes []string `json:"notes,omitempty"`
}

// Changes is whether there is any.
func (p *Prediction) Changes() bool { return len(p.Proxies)+len(p.Requests) > 0 }

// Predict compares two worlds. requests are followed in both; nil derives them.
func Predict(before, after *why.World, options why.Options, requests []why.Question) (*Prediction, error) {
	if options.Completer == nil {
		options.Completer = simulate.NewCompleter()
		options.Completer.Assume = before.Files
	}
	a, err := why.NewModel(before, options)
	if err != nil {
		return nil, fmt.Errorf("before the change: %w", err)
	}
	b, err := why.NewModel(after, options)
	if err != nil {
		return nil, fmt.Errorf("after the change: %w", err)
	}
	out := &Prediction{Proxies: resources(a, b), Requests: []Request{}, Notes: after.Notes}
	if out.Proxies == nil {
		out.Proxies = []Proxy{}
	}
	if requests == nil {
		cut := false
		if requests, cut = derive(scopeOf(out.Proxies, a, b, policyNamespaces(before, after)), a, b); cut {
			out.Notes = append(out.Notes, fmt.Sprintf("only %d of the requests that could be derived were followed: name those that matter by --requests", len(requests)))
		}
	}
	out.Asked = len(requests)
	for _, q := range requests {
		was, is := ask(a, q), ask(b, q)
		if !same(was, is) {
			out.Requests = append(out.Requests, Request{Question: q, Before: was, After: is})
		}
	}
	return out, nil
}

// policyNamespaces are those whose NetworkPolicies differ: the mesh is not sent them.
func policyNamespaces(before, after *why.World) (out []string) {
	find := func(w *why.World, ns, name string) any {
		for _, p := range w.NetworkPolicies {
			if p.Namespace == ns && p.Name == name {
				return p.Spec
			}
		}
		return nil
	}
	for _, list := range []*why.World{before, after} {
		for _, p := range list.NetworkPolicies {
			if !reflect.DeepEqual(find(before, p.Namespace, p.Name), find(after, p.Namespace, p.Name)) && !slices.Contains(out, p.Namespace) {
				out = append(out, p.Namespace)
			}
		}
	}
	return out
}

func ask(m *why.Model, q why.Question) Outcome {
	r, err := m.Ask(q)
	if err != nil {
		// A port that is not there yet, or not any more, and the like.
		return Outcome{Outcome: why.Broken, Cause: err.Error()}
	}
	o := Outcome{Outcome: r.Verdict.Outcome, Status: r.Verdict.Status, Share: r.Verdict.Share, Cause: r.Verdict.Cause, Refs: r.Verdict.Refs}
	for _, address := range r.Verdict.Reached {
		if owner := m.AddressOwner(address); !slices.Contains(o.Reached, owner) {
			o.Reached = append(o.Reached, owner)
		}
	}
	slices.Sort(o.Reached)
	for _, h := range r.Hops {
		title, _, _ := strings.Cut(h.Title, " on ")
		if strings.HasPrefix(title, "waypoint ") || strings.HasPrefix(title, "gateway ") {
			o.Through = append(o.Through, title)
		}
		for _, f := range h.Facts {
			switch f.Name {
			case "route":
				o.Route = f.Text
			case "weights":
				o.Clusters = f.Text
			case "cluster":
				if o.Clusters == "" {
					o.Clusters = f.Text
				}
			case "fault":
				o.Route += " (" + f.Text + ")"
			}
		}
	}
	return o
}

// same is whether nobody would notice a difference.
func same(a, b Outcome) bool {
	a.Cause, b.Cause, a.Refs, b.Refs = "", "", nil, nil
	return reflect.DeepEqual(a, b)
}

// Write prints a prediction for people.
func (p *Prediction) Write(out io.Writer) {
	if !p.Changes() {
		fmt.Fprintf(out, "No proxy is sent anything else; %d requests fare as before.\n", p.Asked)
	}
	for _, proxy := range p.Proxies {
		fmt.Fprintf(out, "%s\n", proxy.Proxy)
		for i, r := range proxy.Resources {
			if i == maxResources {
				fmt.Fprintf(out, "  … and %d more (-o json has all)\n", len(proxy.Resources)-i)
				break
			}
			mark := map[string]string{"added": "+", "removed": "-", "changed": "~"}[r.Change]
			fmt.Fprintf(out, "  %s %s %s\n", mark, r.Type, r.Name)
			for _, f := range r.Fields {
				fmt.Fprintf(out, "      %s\n", f)
			}
			if r.More > 0 {
				fmt.Fprintf(out, "      … and %d more\n", r.More)
			}
		}
	}
	if len(p.Requests) > 0 {
		fmt.Fprintf(out, "\n%d of %d requests fare otherwise:\n", len(p.Requests), p.Asked)
	} else if len(p.Proxies) > 0 {
		fmt.Fprintf(out, "\nAll %d requests fare as before.\n", p.Asked)
	}
	groups := grouped(p.Requests)
	for i, g := range groups {
		if i == maxResources {
			fmt.Fprintf(out, "  … and %d more (-o json has all)\n", len(groups)-i)
			break
		}
		g.write(out)
	}
	for _, n := range p.Notes {
		fmt.Fprintf(out, "note: %s\n", n)
	}
}

// maxResources bounds what is printed for people.
const maxResources = 40

// group is requests of several callers that fare alike.
type group struct {
	Request
	callers []string
}

// grouped puts together what is alike; what is no longer allowed comes first.
func grouped(requests []Request) []*group {
	var out []*group
	by := map[string]*group{}
	for _, r := range requests {
		one := r
		one.From, one.Namespace, one.Before.Cause, one.After.Cause, one.Before.Refs, one.After.Refs = "", "", "", "", nil, nil
		k := fmt.Sprintf("%+v", one)
		if by[k] == nil {
			by[k] = &group{Request: r}
			out = append(out, by[k])
		}
		by[k].callers = append(by[k].callers, r.From)
	}
	slices.SortStableFunc(out, func(a, b *group) int { return a.rank() - b.rank() })
	return out
}

func (g *group) rank() int {
	before, after := why.Code(g.Before.Outcome), why.Code(g.After.Outcome)
	switch {
	case before == 0 && after != 0:
		return 0
	case before != after:
		return 1
	case g.Before.word() != g.After.word():
		return 2
	}
	return 3
}

func (g *group) write(out io.Writer) {
	callers := g.callers
	if len(callers) > 3 {
		callers = append(callers[:3:3], fmt.Sprintf("and %d more", len(g.callers)-3))
	}
	fmt.Fprintf(out, "  %s → %s", strings.Join(callers, ", "), g.To)
	if g.Method != "" {
		fmt.Fprintf(out, " %s %s", g.Method, g.Path)
	}
	for _, h := range g.Headers {
		fmt.Fprintf(out, " -H '%s'", h)
	}
	changed := g.Before.word() != g.After.word()
	if changed {
		fmt.Fprintf(out, ": %s → %s\n", g.Before.word(), g.After.word())
	} else {
		fmt.Fprintf(out, ": %s, but otherwise\n", g.After.word())
	}
	line := func(what, before, after string) {
		if before != after && before+after != "" {
			fmt.Fprintf(out, "      %s: %s → %s\n", what, orNone(before), orNone(after))
		}
	}
	line("through", strings.Join(g.Before.Through, ", "), strings.Join(g.After.Through, ", "))
	line("route", g.Before.Route, g.After.Route)
	if g.Before.Outcome == why.Allowed && g.After.Outcome == why.Allowed {
		line("cluster", g.Before.Clusters, g.After.Clusters)
		line("reaches", strings.Join(g.Before.Reached, ", "), strings.Join(g.After.Reached, ", "))
	}
	switch {
	case !changed:
	case g.After.Outcome == why.Allowed && g.After.Share == 0:
		fmt.Fprintf(out, "      so far: %s\n", g.Before.Cause)
	default:
		fmt.Fprintf(out, "      %s\n", g.After.Cause)
		for _, ref := range g.After.Refs {
			fmt.Fprintf(out, "      look at: %s\n", ref)
		}
	}
}

func (o Outcome) word() string {
	out := o.Outcome
	if o.Status != 0 {
		out += fmt.Sprintf(" (%d)", o.Status)
	}
	if o.Share != 0 {
		out += fmt.Sprintf(" for %d %%", o.Share)
	}
	return out
}

func orNone(s string) string {
	if s == "" {
		return "(none)"
	}
	return s
}
