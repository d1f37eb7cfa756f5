package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	echoPort = 8080
	// gatePort is open to the probe by turns.
	gatePort = 8081
	// opening is how many connections are opened at once in the beginning, and pollers how many use them.
	opening, pollers = 16, 8
	// streams carry data all the time, a chunk each tick.
	streams    = 4
	streamTick = 50 * time.Millisecond
	// fresh connections are opened in so many loops, with freshPause between two.
	fresh      = 2
	freshPause = 40 * time.Millisecond
)

// layer4 is the load of part l4: connections go from each node to the next, and from the last one to the first.
type layer4 struct {
	*bed
	ledger *ledger
	// clients and servers are on each of the nodes.
	clients, servers []*guest
	probe            *guest
	lines            []*line
	ids              atomic.Uint64
}

const l4Policies = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: clients, namespace: soak}
spec:
  selector: {matchLabels: {role: server}}
  action: ALLOW
  rules:
  - from: [{source: {principals: %s}}]
%s`

const gatePolicy = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: gate, namespace: soak}
spec:
  selector: {matchLabels: {role: server}}
  action: DENY
  rules: [{from: [{source: {principals: %s}}], to: [{operation: {ports: ["8081"]}}]}]
`

// otherPolicy concerns nobody who is there.
const otherPolicy = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: other, namespace: soak}
spec:
  action: DENY
  rules: [{from: [{source: {namespaces: [nobody-%d]}}]}]
`

func soakL4(ctx context.Context, b *bed, out io.Writer) (bool, error) {
	w := &layer4{bed: b}
	if err := w.prepare(ctx); err != nil {
		return false, err
	}
	pods, err := b.proxyPods(ctx, meshNamespace, "ztunnel-")
	if err != nil {
		return false, err
	}
	return b.judge(ctx, out, judged{
		pods: pods, steady: []string{"pilot-discovery", "ztunnel", "install-cni"}, identities: 2*len(b.nodes) + 1,
		filesLeft: 3 * len(b.nodes), goroutinesLeft: 16 * len(b.nodes), load: w.load,
	})
}

func (w *layer4) prepare(ctx context.Context) (err error) {
	for i, node := range w.nodes {
		client, err := w.pod(ctx, podOf{namespace: namespace, name: fmt.Sprintf("client-%d", i+1), account: "client", node: node})
		if err != nil {
			return err
		}
		server, err := w.pod(ctx, podOf{namespace: namespace, name: fmt.Sprintf("server-%d", i+1), account: "server", node: node, labels: ", role: server"})
		if err != nil {
			return err
		}
		w.clients, w.servers = append(w.clients, client), append(w.servers, server)
	}
	if w.answers, err = w.serve(ctx); err != nil {
		return err
	}
	if w.probe, err = w.pod(ctx, podOf{namespace: namespace, name: "probe", account: "probe", node: w.nodes[0]}); err != nil {
		return err
	}
	if err := w.apply(ctx, fmt.Sprintf(l4Policies, principals("client", "probe", "guest"), "")); err != nil {
		return err
	}
	return w.eventually(ctx, "a connection between the nodes", func() error {
		for i := range w.clients {
			from, to := w.pair(i)
			if err := w.once(ctx, from, to, echoPort); err != nil {
				return err
			}
		}
		return w.once(ctx, w.probe, w.servers[1], gatePort)
	})
}

// serve has the servers answer.
func (w *layer4) serve(ctx context.Context) (*echo, error) {
	var listeners []net.Listener
	for _, server := range w.servers {
		for _, port := range []int{echoPort, gatePort} {
			l, err := server.ns.Listen(ctx, "tcp", fmt.Sprintf("0.0.0.0:%d", port))
			if err != nil {
				closeListeners(listeners)
				return nil, err
			}
			listeners = append(listeners, l)
		}
	}
	return startEcho(ctx, listeners)
}

// pair number n of who connects to whom.
func (w *layer4) pair(n int) (from, to *guest) {
	return w.clients[n%len(w.nodes)], w.servers[(n+1)%len(w.nodes)]
}

func (w *layer4) open(ctx context.Context, from, to *guest, port uint16) (*line, error) {
	conn, err := from.dial(ctx, to.ip, port)
	if err != nil {
		return nil, err
	}
	return &line{conn: conn, id: w.ids.Add(1)}, nil
}

// once is a connection with one message.
func (w *layer4) once(ctx context.Context, from, to *guest, port uint16) error {
	c, err := w.open(ctx, from, to, port)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	if err := c.exchange(sizeOf(c.id, 0)); err != nil {
		return err
	}
	return c.finish()
}

// load keeps connections open and in use while everything changes. What it returns is an error of the bed; what is lost is in the ledger.
func (w *layer4) load(ctx context.Context, l *ledger) error {
	w.ledger = l
	if err := w.openAll(ctx); err != nil {
		return err
	}
	using, enough := context.WithCancel(ctx)
	defer enough()
	var busy sync.WaitGroup
	for p := range pollers {
		busy.Go(func() { w.poll(using, p) })
	}
	for i := range streams {
		busy.Go(func() { w.stream(using, i) })
	}
	for i := range fresh {
		busy.Go(func() { w.knock(using, i) })
	}
	churning(ctx, w.options.time, l, w.options.pace, append(w.planeChurn(),
		churn{"pods come and go", 2 * time.Second, w.visit},
		churn{"policies that allow the same change", time.Second, w.repeal},
		churn{"a policy that refuses the probe comes and goes", 2 * time.Second, w.gate},
	)...)
	enough()
	busy.Wait()
	w.closeAll()
	return ctx.Err()
}

// openAll opens the connections, each with a first message.
func (w *layer4) openAll(ctx context.Context) error {
	w.lines = make([]*line, w.options.connections)
	var g errgroup.Group
	g.SetLimit(opening)
	for i := range w.lines {
		g.Go(func() error {
			c, err := w.fill(ctx, i)
			w.lines[i] = c
			return err
		})
	}
	return g.Wait()
}

// fill opens the connection in a place.
func (w *layer4) fill(ctx context.Context, place int) (*line, error) {
	from, to := w.pair(place)
	c, err := w.open(ctx, from, to, echoPort)
	if err == nil {
		err = c.exchange(sizeOf(c.id, 0))
		w.ledger.connections.Add(1)
	}
	if err != nil {
		return nil, fmt.Errorf("open connection %d: %w", place, err)
	}
	return c, nil
}

// poll uses the connections that are its share, each once in a period. One that fails is lost, and replaced.
func (w *layer4) poll(ctx context.Context, share int) {
	pauses := w.options.period * pollers / time.Duration(max(len(w.lines), pollers))
	for {
		for i := share; i < len(w.lines); i += pollers {
			if !pause(ctx, pauses) {
				return
			}
			w.use(ctx, i)
		}
		if share >= len(w.lines) {
			return
		}
	}
}

func (w *layer4) use(ctx context.Context, place int) {
	c := w.lines[place]
	if c != nil {
		size := sizeOf(c.id, c.sent)
		err := c.exchange(size)
		if err == nil {
			w.ledger.carried(size)
			return
		}
		w.ledger.lose(fmt.Sprintf("open connection %d after %d messages", place, c.sent), err)
		c.conn.Close()
	}
	c, err := w.fill(ctx, place)
	if err != nil && ctx.Err() == nil {
		w.ledger.lose("connection in place of a lost one", err)
	}
	w.lines[place] = c
}

// closeAll uses each connection once more, and ends it in order.
func (w *layer4) closeAll() {
	var g errgroup.Group
	g.SetLimit(opening)
	for i, c := range w.lines {
		if c == nil {
			continue
		}
		g.Go(func() error {
			err := c.exchange(sizeOf(c.id, c.sent))
			if err == nil {
				err = c.finish()
			}
			if err != nil {
				w.ledger.lose(fmt.Sprintf("open connection %d, at the end", i), err)
				c.conn.Close()
			}
			return nil
		})
	}
	_ = g.Wait() // what is lost is in the ledger
	w.lines = nil
}

// stream sends chunks over one connection, and reads them back at the same time.
func (w *layer4) stream(ctx context.Context, n int) {
	for ctx.Err() == nil {
		if err := w.oneStream(ctx, n); err != nil {
			w.ledger.lose(fmt.Sprintf("stream %d", n), err)
		}
	}
}

func (w *layer4) oneStream(ctx context.Context, n int) error {
	from, to := w.pair(n)
	c, err := w.open(ctx, from, to, echoPort)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer c.conn.Close()
	w.ledger.connections.Add(1)
	var wrote errgroup.Group
	var chunks uint64
	wrote.Go(func() (err error) {
		chunks, err = c.writeChunks(ctx)
		return err
	})
	err = c.readBack(w.ledger)
	if err != nil {
		c.conn.Close() // its writer waits
	}
	err = errors.Join(wrote.Wait(), err)
	if err == nil && chunks != c.sent {
		err = fmt.Errorf("of %d chunks %d came back", chunks, c.sent)
	}
	return err
}

// writeChunks sends chunks until ctx ends, then the end, and returns how many there were.
func (c *line) writeChunks(ctx context.Context) (n uint64, err error) {
	var buf []byte
	for ; ; n++ {
		if !pause(ctx, streamTick) {
			return n, c.conn.(*net.TCPConn).CloseWrite()
		}
		buf = message(buf, c.id, n, chunkSize)
		if err := c.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
			return n, err
		}
		if _, err := c.conn.Write(buf); err != nil {
			c.conn.Close() // its reader waits
			return n, fmt.Errorf("send chunk %d: %w", n, err)
		}
	}
}

// readBack checks the chunks of a stream until its end, which must be the end of a chunk.
func (c *line) readBack(l *ledger) error {
	for ; ; c.sent++ {
		if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		c.out = message(c.out, c.id, c.sent, chunkSize)
		err := c.expect(c.out)
		if errors.Is(err, io.EOF) { // who wrote knows whether that is all
			return nil
		}
		if err != nil {
			return fmt.Errorf("chunk %d: %w", c.sent, err)
		}
		l.carried(chunkSize)
	}
}

// knock opens connections, one after the other, each between the next pair.
func (w *layer4) knock(ctx context.Context, n int) {
	for ; pause(ctx, freshPause); n++ {
		from, to := w.pair(n)
		err := w.once(ctx, from, to, echoPort)
		w.ledger.connections.Add(1)
		if err != nil && ctx.Err() == nil {
			w.ledger.lose("new connection", err)
		}
	}
}

// visitors is how many names there are for pods that come and go: metrics have the names of workloads, which are not without number.
const visitors = 8

// visit has a pod come, be asked and ask, and go.
func (w *layer4) visit(ctx context.Context, n int) error {
	name := fmt.Sprintf("guest-%d", n%visitors)
	if err := w.apply(ctx, podOf{namespace: namespace, name: name, account: "guest", node: w.nodes[n%len(w.nodes)]}.yaml()); err != nil {
		return err
	}
	g, err := w.adopt(ctx, namespace, name)
	if err != nil {
		return err
	}
	defer g.leave()
	l, err := g.ns.Listen(ctx, "tcp", fmt.Sprintf("0.0.0.0:%d", echoPort))
	if err != nil {
		return err
	}
	defer l.Close()
	go serveEcho(l)
	for i := range w.clients {
		if err := w.once(ctx, w.clients[i], g, echoPort); err != nil {
			w.ledger.lose(fmt.Sprintf("connection from %s to %s, which is ready", w.clients[i].name, name), err)
		}
		if err := w.once(ctx, g, w.servers[i], echoPort); err != nil {
			w.ledger.lose(fmt.Sprintf("connection from %s, which is ready, to %s", name, w.servers[i].name), err)
		}
		w.ledger.connections.Add(2)
	}
	return w.end(ctx, g)
}

// repeal changes policies without changing what they allow to whom.
func (w *layer4) repeal(ctx context.Context, n int) error {
	more := fmt.Sprintf("  - from: [{source: {principals: %s}}]\n    to: [{operation: {ports: [\"%d\"]}}]\n", principals(fmt.Sprintf("stranger-%d", n)), 1+n%60000)
	if err := w.apply(ctx, fmt.Sprintf(l4Policies, principals("client", "probe", "guest"), more)); err != nil {
		return err
	}
	if n%2 == 0 {
		return w.box.DeleteObject(ctx, "AuthorizationPolicy", namespace, "other")
	}
	return w.apply(ctx, fmt.Sprintf(otherPolicy, n))
}

// gate has a policy refuse the probe, which must end what it has open and refuse what is new, and takes it away again.
func (w *layer4) gate(ctx context.Context, _ int) error {
	open, err := w.open(ctx, w.probe, w.servers[1], gatePort)
	if err == nil {
		err = open.exchange(shortest)
	}
	if err != nil {
		return fmt.Errorf("a connection that is allowed: %w", err)
	}
	defer open.conn.Close()
	if err := w.apply(ctx, fmt.Sprintf(gatePolicy, principals("probe"))); err != nil {
		return err
	}
	knock := func() error { return w.once(ctx, w.probe, w.servers[1], gatePort) }
	refused := errors.Join(settled(ctx, func() error {
		if knock() == nil {
			return errors.New("a connection that is refused was made")
		}
		return nil
	}), ended(ctx, open))
	if err := w.box.DeleteObject(ctx, "AuthorizationPolicy", namespace, "gate"); err != nil {
		return errors.Join(refused, err)
	}
	return errors.Join(refused, settled(ctx, knock))
}

// ended waits for the end of a connection that is not allowed any more.
func ended(ctx context.Context, c *line) error {
	return within(ctx, patience, "a connection that is refused by now ends", func() error {
		switch err := c.exchange(shortest); {
		case err == nil:
			return errors.New("it goes on")
		case errors.Is(err, os.ErrDeadlineExceeded):
			return err // open, though nothing comes back
		}
		return nil
	})
}

// settled waits until check returns nil, and then wants it to do so again and again.
func settled(ctx context.Context, check func() error) error {
	if err := within(ctx, patience, "it comes true", check); err != nil {
		return err
	}
	for n := range 5 {
		if err := check(); err != nil {
			return fmt.Errorf("it came true, and was not %d looks later: %w", n+1, err)
		}
	}
	return nil
}
