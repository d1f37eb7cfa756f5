package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// idleLimit is how much memory an idle connection may cost our engine: what the design allows the node proxy for one that is tunnelled,
// at its first stage, in bytes.
const idleLimit = 12 << 10

// idlers are connections that have carried a request and are idle then. The targets: not more than Envoy's, as the mesh is to be smaller
// than what it replaces, and idleLimit. HAProxy's is for reading.
func idlers(conns int) []scenario {
	gateways := func(b *testbed) []*proxy { return b.gateways }
	waypoints := func(b *testbed) []*proxy { return b.waypoints }
	target := map[string]float64{envoyed: 1}
	return []scenario{
		{"l7-memory-h1", target, (*testbed).startGateways, gateways, connectH1(conns)},
		{"l7-memory-h2", target, (*testbed).startGateways, gateways, connectH2(conns, 1)},
		{"l7-memory-hbone", target, (*testbed).startWaypoints, waypoints, connectHBONE(conns)},
	}
}

// memories measures memory per idle connection: what the process has from the kernel, without what of it is mapped from files.
func memories(ctx context.Context, b *testbed, r *report) error {
	conns := b.options.idle
	return r.table(fmt.Sprintf("memory per idle connection of %d\tisthmus\tHAProxy\tEnvoy", conns), func(w io.Writer) error {
		few := idlers(max(conns/20, 1))
		for i, s := range idlers(conns) {
			if !b.options.wants(s.name) {
				continue
			}
			if err := s.start(b, ctx); err != nil {
				return err
			}
			took := map[string]float64{}
			for _, p := range s.proxies(b) {
				bytes, err := b.idle(ctx, p, few[i].connect, s.connect)
				if err != nil {
					return fmt.Errorf("%s: %s: %w", s.name, p.name, err)
				}
				took[p.kind()] = bytes / float64(conns)
			}
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", s.name, kib(took, isthmus), kib(took, haproxy), kib(took, envoyed))
			for peer, most := range s.target {
				r.ratio(s.name+"-"+peer, took[isthmus]/max(took[peer], 1), most)
			}
			r.ratio(s.name, took[isthmus]/idleLimit, 1)
		}
		return nil
	})
}

func kib(took map[string]float64, name string) string {
	bytes, ok := took[name]
	if !ok {
		return ""
	}
	return fmt.Sprintf("%.1f KiB", bytes/1024)
}

// idle is by how much a proxy grows with connections. A few are there before: what the first of all take is not theirs. Each makes one
// request, one connection after the other, so that what is counted is not what many requests at once would leave behind.
func (b *testbed) idle(ctx context.Context, p *proxy, few, many connector) (bytes float64, err error) {
	var before, after int64
	for _, step := range []struct {
		connect connector
		memory  *int64
	}{{few, &before}, {many, &after}} {
		s, err := step.connect(ctx, b, p)
		if err != nil {
			return 0, err
		}
		defer s.close()
		for i, c := range s.clients {
			if err := c.run(1, &s.watches[i]); err != nil {
				return 0, err
			}
		}
		if *step.memory, err = p.memory(); err != nil {
			return 0, err
		}
	}
	return float64(after - before), nil
}

// memory is what the process has from the kernel, in bytes; of our engine when nothing is left to collect.
func (p *proxy) memory() (int64, error) {
	if p.in != nil {
		if _, err := p.ask("collect"); err != nil {
			return 0, err
		}
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, fmt.Errorf("memory of %s: %w", p.name, err)
	}
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	line, _, _ := strings.Cut(rest, "\n")
	size, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(line), "kB")), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("memory of %s: %w", p.name, err)
	}
	return size << 10, nil
}
