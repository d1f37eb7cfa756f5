package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// callers make requests at the same time.
	callers = 24
	// endpoints are there before the load and after it.
	endpoints = 3
	// inARow is how many answers in a row show that a change is in force, wherever a request goes.
	inARow      = 10
	routeHeader = "X-Soak-Route"
	// rolling and steady are the waypoints, and the services behind them.
	rolling, steady = "rolling", "steady"
)

// layer7 is the load of part l7. The same pods are behind two services: the waypoint of the one is replaced again and again, that of the
// other lives as long as the run, so that one sees whether it grows.
type layer7 struct {
	*bed
	web     *web
	current atomic.Pointer[ledger]
	clients [2]*guest
	probe   *guest
	callers []*caller
	ids     uint64
	vips    map[string]netip.Addr
}

func (w *layer7) ledger() *ledger { return w.current.Load() }

const webManifest = `apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: soak}
spec:
  replicas: %d
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: %d
      containers: [{name: app, image: sleep, readinessProbe: {tcpSocket: {port: %d}, periodSeconds: 1}}]
`

// behindManifest is a service and its waypoint, which keeps idle connections to endpoints for seconds, so that one can see what is left.
const behindManifest = `apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: soak, labels: {istio.io/use-waypoint: waypoint-%[1]s}}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %[1]s, namespace: soak}
spec: {host: %[1]s, trafficPolicy: {connectionPool: {http: {idleTimeout: 3s}}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: waypoint-%[1]s, namespace: soak}
data:
  deployment: |
    spec:
      replicas: %[2]d
      template: {spec: {containers: [{name: istio-proxy, env: [{name: SECRET_TTL, value: "%[3]s"}]}]}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint-%[1]s, namespace: soak, labels: {istio.io/waypoint-for: service}}
spec:
  gatewayClassName: istio-waypoint
  infrastructure: {parametersRef: {group: "", kind: ConfigMap, name: waypoint-%[1]s}}
  listeners: [{name: mesh, port: 15008, protocol: HBONE}]
---
`

// routeManifest is a route that marks the answers.
const routeManifest = `apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: %[1]s, namespace: soak}
spec:
  hosts: [%[1]s]
  http:
  - match: [{uri: {prefix: /other-%[2]d}}]
    route: [{destination: {host: %[1]s}}]
  - route: [{destination: {host: %[1]s}, headers: {response: {set: {x-soak-route: "%[2]d"}}}}]
---
`

const l7Policy = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: clients-%[1]s, namespace: soak}
spec:
  targetRefs: [{group: "", kind: Service, name: %[1]s}]
  action: ALLOW
  rules:
  - from: [{source: {principals: %[2]s}}]
  - to: [{operation: {paths: ["/stranger-%[3]d"]}}]
---
`

const l7Gate = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: gate, namespace: soak}
spec:
  targetRefs: [{group: "", kind: Service, name: rolling}]
  action: DENY
  rules: [{from: [{source: {principals: %s}}], to: [{operation: {paths: [/gate], methods: [POST]}}]}]
`

func services() []string { return []string{rolling, steady} }

func soakL7(ctx context.Context, b *bed, out io.Writer) (bool, error) {
	w := &layer7{bed: b, vips: map[string]netip.Addr{}}
	w.current.Store(newLedger(nil))
	w.web = &web{bed: b, ledger: w.ledger, pods: map[string]*http.Server{}, last: map[uint64]uint64{}}
	attending, enough := context.WithCancel(ctx)
	var attendants sync.WaitGroup
	attendants.Go(func() { w.web.attend(attending) })
	defer attendants.Wait()
	defer enough()
	if err := w.prepare(ctx); err != nil {
		return false, err
	}
	// Also where the rate is given: what there is before the load includes tunnels from each waypoint to each endpoint.
	took, err := w.saturate(ctx)
	if err != nil {
		return false, err
	}
	rate := b.options.rate
	if rate == 0 {
		rate = took * b.options.share
	}
	fmt.Fprintf(out, "the bed takes %.0f requests per second; load: %.0f\n", took, rate)
	pods, err := b.proxyPods(ctx, meshNamespace, "ztunnel-")
	if err != nil {
		return false, err
	}
	waypoints, err := b.proxyPods(ctx, namespace, "waypoint-"+steady)
	if err != nil {
		return false, err
	}
	return b.judge(ctx, out, judged{
		pods: append(pods, waypoints...), steady: []string{"pilot-discovery", "ztunnel", "waypoint", "install-cni"}, identities: 4,
		filesLeft: 24, goroutinesLeft: 96,
		load: func(ctx context.Context, l *ledger) error { return w.load(ctx, l, rate) },
	})
}

func (w *layer7) prepare(ctx context.Context) (err error) {
	text := fmt.Sprintf(webManifest, endpoints, int(webGrace.Seconds()), webPort)
	for i, service := range services() {
		text += "---\n" + fmt.Sprintf(behindManifest, service, 2-i, w.options.ttl) + fmt.Sprintf(routeManifest, service, 0) +
			fmt.Sprintf(l7Policy, service, principals("client", "probe"), 0)
	}
	if err := w.apply(ctx, text); err != nil {
		return err
	}
	for i, node := range w.nodes {
		if w.clients[i], err = w.pod(ctx, podOf{namespace: namespace, name: fmt.Sprintf("client-%d", i+1), account: "client", node: node}); err != nil {
			return err
		}
	}
	if w.probe, err = w.pod(ctx, podOf{namespace: namespace, name: "probe", account: "probe", node: w.nodes[0]}); err != nil {
		return err
	}
	if err := w.box.WaitReady(ctx, namespace); err != nil {
		return err
	}
	status, err := w.box.Status(ctx)
	if err != nil {
		return err
	}
	for _, s := range status.Services {
		if s.Namespace == namespace && len(s.IPs) > 0 {
			if w.vips[s.Name], err = netip.ParseAddr(s.IPs[0]); err != nil {
				return err
			}
		}
	}
	for i := range callers {
		w.callers = append(w.callers, w.caller(w.clients[i%2], services()[i/2%2]))
	}
	for _, service := range services() {
		c := w.caller(w.probe, service)
		if err := w.eventually(ctx, "an answer by way of waypoint-"+service, w.routed(ctx, c, 0)); err != nil {
			return err
		}
	}
	return nil
}

func (w *layer7) caller(from *guest, service string) *caller {
	w.ids++
	return newCaller(from, w.vips[service], 80, service+"."+namespace+".svc.cluster.local", w.ids, w.ledger)
}

// routed checks that answers, each on a new connection, are marked by version n of a route.
func (w *layer7) routed(ctx context.Context, c *caller, n int) func() error {
	return func() error {
		for range inARow {
			head, err := c.ask(ctx)
			c.client.CloseIdleConnections()
			if err != nil {
				w.ledger().lose("request by the probe", err)
				return err
			}
			if got := head.Get(routeHeader); got != fmt.Sprint(n) {
				return fmt.Errorf("the answer is marked %q, not %d", got, n)
			}
		}
		return nil
	}
}

// saturate measures how many requests per second the bed takes.
func (w *layer7) saturate(ctx context.Context) (float64, error) {
	l := newLedger(nil)
	w.current.Store(l)
	w.request(ctx, w.options.settle, 0)
	if lost, losses := l.total(); lost > 0 {
		return 0, fmt.Errorf("%d requests failed while nothing changed, the first: %s", lost, losses[0])
	}
	return float64(l.messages.Load()) / time.Since(l.begin).Seconds(), ctx.Err()
}

// request has all callers make requests for a time, so many per second together; 0 is as many as they can.
func (w *layer7) request(ctx context.Context, d time.Duration, rate float64) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	w.until(ctx, rate)
}

// until has all callers make requests until ctx ends. Those under way then are made to their end.
func (w *layer7) until(ctx context.Context, rate float64) {
	asking := context.WithoutCancel(ctx)
	var busy sync.WaitGroup
	for i, c := range w.callers {
		busy.Go(func() {
			defer c.client.CloseIdleConnections()
			var between time.Duration
			if rate > 0 {
				between = time.Duration(float64(len(w.callers)) / rate * float64(time.Second))
			}
			due := time.Now().Add(between * time.Duration(i) / time.Duration(len(w.callers)))
			for pause(ctx, time.Until(due)) {
				if _, err := c.ask(asking); err != nil {
					w.ledger().lose("request by "+c.host, err)
				}
				due = due.Add(between)
				if now := time.Now(); due.Before(now) { // what could not be asked in time is not made up for
					due = now
				}
			}
		})
	}
	busy.Wait()
}

// load makes requests while everything changes.
func (w *layer7) load(ctx context.Context, l *ledger, rate float64) error {
	w.current.Store(l)
	using, enough := context.WithCancel(ctx)
	defer enough()
	var busy sync.WaitGroup
	busy.Go(func() { w.until(using, rate) })
	churning(ctx, w.options.time, l, w.options.pace, append(w.planeChurn(),
		churn{"a waypoint replaced", 5 * time.Second, func(ctx context.Context, _ int) error {
			name := "waypoint-" + rolling
			return w.replacing(ctx, namespace, name+"-", func() error { return w.box.Restart(ctx, "Deployment", namespace, name) })
		}},
		churn{"endpoints come and go", 3 * time.Second, w.scale},
		churn{"routes change", 2 * time.Second, w.reroute(w.caller(w.probe, rolling), w.caller(w.probe, steady))},
		churn{"policies that allow the same change", time.Second, func(ctx context.Context, n int) error {
			var text strings.Builder
			for _, service := range services() {
				fmt.Fprintf(&text, l7Policy, service, principals("client", "probe", fmt.Sprintf("stranger-%d", n)), n)
			}
			return w.apply(ctx, text.String())
		}},
		churn{"a policy that refuses the probe comes and goes", 2 * time.Second, w.gate(w.caller(w.probe, rolling))},
	)...)
	enough()
	busy.Wait()
	return w.scaleTo(ctx, endpoints) // as before: what a pod has open would count as left
}

// scale changes how many endpoints there are.
func (w *layer7) scale(ctx context.Context, n int) error {
	return w.scaleTo(ctx, endpoints+[]int{0, 2, 0, 1}[n%4])
}

// scaleTo returns when there are as many endpoints as wanted.
func (w *layer7) scaleTo(ctx context.Context, want int) error {
	if err := w.box.Scale(ctx, namespace, "web", want); err != nil {
		return err
	}
	return w.eventually(ctx, fmt.Sprintf("there are %d pods of the web", want), func() error {
		pods, err := w.status(ctx, namespace, "web-")
		if err != nil {
			return err
		}
		ready := 0
		for _, p := range pods {
			if p.Ready && !p.Terminating {
				ready++
			}
		}
		if ready != want || len(pods) != want {
			return fmt.Errorf("%d of %d are ready", ready, len(pods))
		}
		return nil
	})
}

// reroute changes the routes, and waits until all waypoints follow.
func (w *layer7) reroute(probes ...*caller) func(ctx context.Context, n int) error {
	return func(ctx context.Context, n int) error {
		var text strings.Builder
		for _, service := range services() {
			fmt.Fprintf(&text, routeManifest, service, n)
		}
		if err := w.apply(ctx, text.String()); err != nil {
			return err
		}
		for _, c := range probes {
			if err := within(ctx, patience, "answers are marked", w.routed(ctx, c, n)); err != nil {
				return err
			}
		}
		return nil
	}
}

// gate has a policy refuse the probe, and takes it away again.
func (w *layer7) gate(c *caller) func(ctx context.Context, n int) error {
	c.path = "/gate"
	answers := func(ctx context.Context, want int) func() error {
		return func() error {
			for range inARow {
				_, err := c.ask(ctx)
				c.client.CloseIdleConnections()
				said := http.StatusOK
				if refused := (*statusError)(nil); errors.As(err, &refused) {
					said = refused.code
				}
				if err != nil && said != http.StatusForbidden {
					w.ledger().lose("request by the probe", err)
					return err
				}
				if said != want {
					return fmt.Errorf("answered %d, not %d", said, want)
				}
			}
			return nil
		}
	}
	return func(ctx context.Context, _ int) error {
		if err := w.apply(ctx, fmt.Sprintf(l7Gate, principals("probe"))); err != nil {
			return err
		}
		refused := within(ctx, patience, "the probe is refused", answers(ctx, http.StatusForbidden))
		if err := w.box.DeleteObject(ctx, "AuthorizationPolicy", namespace, "gate"); err != nil {
			return errors.Join(refused, err)
		}
		return errors.Join(refused, within(ctx, patience, "the probe is let in", answers(ctx, http.StatusOK)))
	}
}
