package main

import (
	"bytes"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/isthmus-mesh/isthmus/tools/bench"
)

// report is what a run prints: tables as they are measured, and all ratios in the end.
type report struct {
	out     io.Writer
	pending []ratio
}

type ratio struct {
	name          string
	value, target float64
}

// table prints rows below a title, once they are all there; without rows it prints nothing.
func (r *report) table(title string, rows func(io.Writer) error) error {
	var text bytes.Buffer
	if err := rows(&text); err != nil || text.Len() == 0 {
		return err
	}
	w := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, title)
	if _, err := text.WriteTo(w); err != nil {
		return err
	}
	return w.Flush()
}

// ratio notes one, to be printed in the end.
func (r *report) ratio(name string, value, target float64) {
	r.pending = append(r.pending, ratio{name, value, target})
}

// ratios notes those of a scenario to each peer that it has a target for.
func (r *report) ratios(s scenario, sessions map[string]*session, of func(*session) []float64) {
	for _, peer := range []string{haproxy, envoyed} {
		if other := sessions[peer]; other != nil && s.target[peer] > 0 {
			r.ratio(s.name+"-"+peer, median(of(sessions[isthmus]))/median(of(other)), s.target[peer])
		}
	}
}

// print prints the ratios, and returns whether all targets are met.
func (r *report) print() bool {
	ok := true
	for _, q := range r.pending {
		ok = bench.Report(r.out, q.name, q.value, q.target) && ok
	}
	return ok
}
