package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/isthmus-mesh/isthmus/pkg/kube/apiserver"
	"github.com/isthmus-mesh/isthmus/tools/internal/objects"
	"github.com/isthmus-mesh/isthmus/tools/internal/planeproc"
)

const (
	// quiet is for how long nothing may come before both sides are compared: Istio's waits for 100 ms after a change.
	quiet = 250 * time.Millisecond
	// slow is how long both sides may take to tell of the markers.
	slow = time.Minute
)

// bed is an API server and what both control planes tell of it.
type bed struct {
	options options
	server  *apiserver.Server
	report  *report
	objects *objects.Cluster
	markers *objects.Cluster
	number  uint32 // of the last markers

	ours, theirs side
}

// side is a control plane and the client that listens to it.
type side struct {
	process *planeproc.Process
	client  *ztunnel
}

func newBed(ctx context.Context, o options, server *apiserver.Server, r *report) (*bed, error) {
	b := &bed{options: o, server: server, report: r, number: 1000}
	var err error
	if b.objects, err = objects.New(server.REST()); err != nil {
		return nil, err
	}
	if b.markers, err = objects.New(server.REST()); err != nil {
		return nil, err
	}
	s, err := parseScenario("namespaces", []byte(namespaces))
	if err != nil {
		return nil, err
	}
	return b, doAll(ctx, b.markers, s.steps[0].actions)
}

// namespaces that both control planes need. The label is what a scenario selects namespaces by, so that markers are told of there, too.
const namespaces = `
step: namespaces
---
{apiVersion: v1, kind: Namespace, metadata: {name: istio-system}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: marker, labels: {team: red}}}
`

// environment has objects remain as scenarios write them: the status of Gateways is theirs, and nothing is deployed. Addresses of
// ServiceEntries are allocated by one side, and read by both.
func environment(scenario []string, allocates string) []string {
	return append([]string{
		"PILOT_ENABLE_AMBIENT=true", "PILOT_ENABLE_GATEWAY_API_STATUS=false", "PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER=false", "AMBIENT_ENABLE_STATUS=false",
		"PILOT_ENABLE_IP_AUTOALLOCATE=" + allocates,
	}, scenario...)
}

// judge runs scenarios of one environment.
func (b *bed) judge(ctx context.Context, scenarios []*scenario) error {
	var err error
	start := func(program, allocates string) (s side) {
		if err == nil {
			s.process, err = planeproc.Start(ctx, planeproc.Command{Program: program, Env: environment(scenarios[0].env, allocates)}, b.server.Dir(), b.server.REST())
		}
		if err == nil {
			s.client, err = connect(ctx, s.process.GRPC)
		}
		return s
	}
	b.ours, b.theirs = start(b.options.ours, "false"), start(b.options.theirs, "true")
	defer b.ours.stop()
	defer b.theirs.stop()
	if err != nil {
		return err
	}
	for _, s := range scenarios {
		if err := b.play(ctx, s); err != nil {
			return fmt.Errorf("%s: %w\n--- ours\n%s\n--- theirs\n%s", s.name, err, b.ours.process.Output(), b.theirs.process.Output())
		}
	}
	return nil
}

func (s side) stop() {
	if s.client != nil {
		s.client.stop()
	}
	if s.process != nil {
		s.process.Stop()
	}
}

// play takes the steps of a scenario, and deletes in the end what is left of it.
func (b *bed) play(ctx context.Context, s *scenario) error {
	for _, step := range slices.Concat(s.steps, []step{{name: "the end"}}) {
		before, _ := b.ours.client.state()
		var err error
		if step.actions == nil {
			err = b.objects.Clear(ctx)
		} else {
			err = doAll(ctx, b.objects, step.actions)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		if err := b.settle(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		ours, theirs, differences := b.agree(ctx, s.name)
		b.report.step(s.name, step.name, ours, theirs, changes(before, ours), differences)
	}
	return nil
}

// settle waits until both sides have told of new markers.
func (b *bed) settle(ctx context.Context) error {
	b.number++
	if err := mark(ctx, b.markers, b.number); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, slow, errSlow)
	defer cancel()
	for _, s := range []side{b.ours, b.theirs} {
		for {
			state, _ := s.client.state()
			if marked(state, b.number) {
				break
			}
			select {
			case <-s.client.wake:
			case <-s.process.Ended():
				return errors.New("a control plane ended")
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

// agree waits until both sides have been quiet for a while and tell the same; if they do not, until patience is over. It returns what
// they tell, and how that differs.
func (b *bed) agree(ctx context.Context, scenario string) (ours, theirs map[string]proto.Message, differences []difference) {
	deadline := time.NewTimer(b.options.patience)
	defer deadline.Stop()
	for {
		ours, last := b.ours.client.state()
		theirs, other := b.theirs.client.state()
		if other.After(last) {
			last = other
		}
		rest := quiet - time.Since(last)
		if rest <= 0 {
			differences = compare(ours, theirs)
			if !b.report.unexpected(scenario, differences) {
				return ours, theirs, differences
			}
			rest = quiet
		}
		select {
		case <-time.After(rest):
		case <-deadline.C:
			return ours, theirs, compare(ours, theirs)
		case <-ctx.Done():
			return ours, theirs, compare(ours, theirs)
		}
	}
}

// changes is how many resources came, changed or went.
func changes(before, after map[string]proto.Message) int {
	names := map[string]bool{}
	for _, d := range compare(before, after) {
		names[d.Resource] = true
	}
	return len(names)
}
