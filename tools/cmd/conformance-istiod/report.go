package main

import (
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
)

// few is how many differences of a step are printed.
const few = 12

// report counts and prints.
type report struct {
	out          io.Writer
	table        []*intended
	all, verbose bool

	steps, agree, differ int
}

// unexpected is whether any of the differences is not meant to be.
func (r *report) unexpected(scenario string, differences []difference) bool {
	for _, d := range differences {
		if find(r.table, scenario, d) == nil {
			return true
		}
	}
	return false
}

// step reports how far both sides agree after a step that changed so many resources.
func (r *report) step(scenario, name string, ours, theirs map[string]proto.Message, changed int, differences []difference) {
	names := map[string]bool{}
	for _, side := range []map[string]proto.Message{ours, theirs} {
		for name := range side {
			names[name] = true
		}
	}
	documented, bad := map[string]bool{}, map[string]bool{}
	var failures []difference
	for _, d := range differences {
		e := find(r.table, scenario, d)
		if e == nil {
			bad[d.Resource] = true
			failures = append(failures, d)
			continue
		}
		e.used = true
		documented[d.Resource] = true
		if r.verbose {
			fmt.Fprintf(r.out, "    as intended (%s): %v\n", e.Why, d)
		}
	}
	r.steps++
	r.agree += len(names) - len(bad)
	r.differ += len(bad)
	verdict := "ok  "
	if len(bad) > 0 {
		verdict = "FAIL"
	}
	fmt.Fprintf(r.out, "%s %s: %s: %d changed, %d agree (%d with differences that are intended), %d differ\n",
		verdict, scenario, name, changed, len(names)-len(bad), len(documented), len(bad))
	for i, d := range failures {
		if i == few && !r.all {
			fmt.Fprintf(r.out, "    … and %d more (-all)\n", len(failures)-few)
			break
		}
		fmt.Fprintf(r.out, "    %v\n", d)
	}
}

// finish prints the end, and returns whether all is well. whole is whether all scenarios were run: then each entry of the table has to
// have been of use.
func (r *report) finish(whole bool) bool {
	ok := r.differ == 0
	for _, e := range r.table {
		if whole && !e.used {
			fmt.Fprintf(r.out, "FAIL nothing differs as intended any more: %s %s: %s\n", e.Resource, e.Path, e.Why)
			ok = false
		}
	}
	fmt.Fprintf(r.out, "%d resources of %d steps agree, %d differ\n", r.agree, r.steps, r.differ)
	return ok
}
