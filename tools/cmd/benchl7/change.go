package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// changeTarget is how much of a full build the change of one route may cost with 1 000 services, in percent: as the design wants work in
// proportion to what changed.
const changeTarget = 1

// changes measures what it costs our engine to put another version of one service's routes in force, as a part of what all of the
// configuration has cost it: both from the control plane's messages to their acknowledgements, which follow when what they say is in force.
func changes(ctx context.Context, b *testbed, r *report) error {
	const name = "l7-change-route"
	if !b.options.wants(name) {
		return nil
	}
	var full, one []float64
	for rep := range b.options.reps {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		built, changed, err := b.change(ctx, fmt.Sprintf("%s-change-%d", isthmus, rep))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		full, one = append(full, float64(built)), append(one, float64(changed)/float64(b.options.changes))
	}
	r.ratio(name+"-percent", 100*median(one)/median(full), changeTarget)
	return r.table(fmt.Sprintf("CPU with %d services\tall of it\tone route", b.options.services), func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s\t%.1f ms\t%.3f ms\n", name, median(full)/1e6, median(one)/1e6)
		return err
	})
}

// change starts a waypoint, has it take a whole configuration, and then changes of one route in it.
func (b *testbed) change(ctx context.Context, pod string) (full, all time.Duration, err error) {
	address, err := freeAddress()
	if err != nil {
		return 0, 0, err
	}
	content, err := waypointResources(address, b.server.ID.String(), b.options.services)
	if err != nil {
		return 0, 0, err
	}
	c := b.plane.hold(pod, content)
	p, err := b.startIsthmus(ctx, "waypoint", pod, address)
	if err != nil {
		return 0, 0, err
	}
	defer p.stop()
	patient, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	fail := func(err error) (time.Duration, time.Duration, error) {
		return 0, 0, errors.Join(err, b.plane.problem(), p.alive())
	}
	if err := c.connected(patient); err != nil {
		return fail(err)
	}
	before, err := p.used()
	if err != nil {
		return fail(err)
	}
	c.release()
	if err := c.acknowledged(patient, content); err != nil {
		return fail(err)
	}
	built, err := p.used()
	if err != nil {
		return fail(err)
	}
	for i := range b.options.changes {
		if err := ctx.Err(); err != nil {
			return 0, 0, err
		}
		routes, _ := waypointRoutes(i%b.options.services, fmt.Sprint("|", i)).Envoy()
		changed := resources{}
		if err := changed.add(routes); err != nil {
			return 0, 0, err
		}
		if err := c.push(changed); err != nil {
			return fail(err)
		}
		if err := c.acknowledged(patient, changed); err != nil {
			return fail(err)
		}
	}
	after, err := p.used()
	if err != nil {
		return fail(err)
	}
	return built.cpu - before.cpu, after.cpu - built.cpu, b.plane.problem()
}
