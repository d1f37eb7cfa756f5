package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

// patience is how many requests of a fixture may differ before others are no longer given time.
const patience = 4

// maxDifferences is how many documented differences there may be.
const maxDifferences = 5

// report counts and prints.
type report struct {
	out           io.Writer
	verbose       bool
	agree, differ int
	differed      int // before the fixture at hand
	problems      int // that are not about requests
	failures      []string
	documented    map[string]bool
}

func (r *report) problem(format string, args ...any) {
	r.problems++
	r.fail(fmt.Sprintf("FAIL "+format+"\n", args...))
}

// fail shows what is wrong, now and once more at the end, which is what is seen of a long run.
func (r *report) fail(text string) {
	r.failures = append(r.failures, text)
	io.WriteString(r.out, text)
}

// finish prints the last line; it is true when all is well.
func (r *report) finish(b *testbed) bool {
	if b.options.engine == "envoy" {
		fmt.Fprintln(r.out, "our engine was not asked (-engine envoy): Envoy is compared with what is expected")
	}
	for _, d := range sortedKeys(r.documented) {
		fmt.Fprintln(r.out, "documented difference:", d)
	}
	if len(r.documented) > maxDifferences {
		r.problem("more than %d documented differences", maxDifferences)
	}
	if r.problems > 0 {
		fmt.Fprintf(r.out, "%d problems with the configuration\n", r.problems)
	}
	for _, f := range r.failures {
		io.WriteString(r.out, f)
	}
	fmt.Fprintf(r.out, "envoy: %d requests agree, %d differ, %d resources ACKed\n", r.agree, r.differ, len(b.acked))
	return r.differ == 0 && r.problems == 0
}

// judge goes through the fixtures. An error means that one could not be judged at all.
func (b *testbed) judge(ctx context.Context, fixtures []*fixture, report *report) error {
	for _, f := range fixtures {
		start := time.Now()
		agreed := report.agree
		report.differed = report.differ
		err := b.apply(ctx, f)
		lines, logErr := b.refusals()
		if logErr != nil {
			return logErr
		}
		if b.istiod != nil && b.istiod.refused != nil {
			lines = append(lines, b.istiod.refused.Error())
		}
		for _, l := range lines {
			report.problem("%s: %s", f.name, l)
		}
		if err != nil {
			return err
		}
		for _, way := range ways() {
			if err := f.unready[way]; err != nil {
				report.problem("%s: %v; requests that go there are left out", f.name, err)
			}
		}
		for _, p := range b.all() {
			if err := p.alive(); err != nil {
				return err
			}
		}
		if b.istiod == nil {
			if err := b.checkExtensions(ctx, f, report); err != nil {
				return err
			}
		}
		if err := b.checkACKs(ctx, f, report); err != nil {
			return err
		}
		requests := f.requests
		if !f.noGenerated {
			generated, err := b.generate(ctx, f)
			if err != nil {
				return err
			}
			requests = append(requests[:len(requests):len(requests)], generated...)
		}
		requests = append(requests[:len(requests):len(requests)], f.randomRequests()...)
		for _, r := range requests {
			if f.unready[orDefault(r.Via, "waypoint")] != nil {
				continue
			}
			if err := b.judgeRequest(ctx, f, r, report); err != nil {
				return fmt.Errorf("%s: %s: %w", f.name, r.Name, err)
			}
		}
		fmt.Fprintf(report.out, "%-28s %3d agree, %d differ (%s)\n", f.name, report.agree-agreed, report.differ-report.differed, time.Since(start).Round(time.Millisecond))
	}
	return nil
}

// all proxies.
func (b *testbed) all() []*proxy {
	var out []*proxy
	for _, way := range ways() {
		out = append(out, b.proxies[way]...)
	}
	return out
}

func (b *testbed) judgeRequest(ctx context.Context, f *fixture, r request, report *report) error {
	if r.Via == "" {
		r.Via = "waypoint"
	}
	r.logged = f.logs
	proxies := b.proxies[r.Via]
	if len(proxies) == 0 {
		return fmt.Errorf("via: there is no proxy %q", r.Via)
	}
	var wrong []string
	deadline := time.Now().Add(b.options.settle)
	if report.differ > report.differed+patience {
		deadline = time.Now() // it is not about settling
	}
	for try := 1; ; try++ {
		var err error
		if wrong, err = b.ask(ctx, proxies, r); err != nil {
			return err
		}
		if len(wrong) == 0 || try > 1 && time.Now().After(deadline) || ctx.Err() != nil {
			break
		}
		pause(ctx, 150*time.Millisecond)
	}
	if len(wrong) == 0 {
		if report.agree++; r.Difference != "" {
			report.documented[r.Difference] = true
		}
		if report.verbose {
			fmt.Fprintf(report.out, "  ok %s: %s\n", f.name, r.Name)
		}
		return nil
	}
	report.differ++
	report.fail(fmt.Sprintf("DIFFER %s: %s\n    %s\n", f.name, r.Name, strings.Join(wrong, "\n    ")))
	return nil
}

// ask sends the request through each engine and returns what is wrong with the answers.
func (b *testbed) ask(ctx context.Context, proxies []*proxy, r request) ([]string, error) {
	var wrong []string
	var first []string
	for i, p := range proxies {
		if err := p.alive(); err != nil {
			return nil, err
		}
		got, err := b.send(ctx, p, r)
		if err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %v", p.engine, err))
			continue
		}
		expected := r.Want
		if i > 0 && r.Difference != "" {
			expected = r.Isthmus
		}
		for _, u := range unmet(got, expected) {
			wrong = append(wrong, p.engine+": "+u)
		}
		switch {
		case i == 0:
			first = facts(got, r.Want)
			continue
		case r.Difference != "":
			continue
		}
		wrong = append(wrong, differences(first, facts(got, r.Want))...)
	}
	return wrong, nil
}
