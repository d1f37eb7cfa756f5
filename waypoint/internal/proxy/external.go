package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/httpmsg"
	"github.com/isthmus-mesh/isthmus/waypoint/internal/upstream"
	"github.com/isthmus-mesh/isthmus/waypoint/l7"
	"github.com/isthmus-mesh/isthmus/waypoint/l7/extauthz"
)

// consult asks the authorizers that the tables want to be asked, one after the other. False says that the exchange is over.
func (x *exchange) consult(now time.Time) bool {
	if limit := x.binding.chain.HTTP.RequestTimeout; limit > 0 && !x.s.Ended() {
		x.guard.set(deadlineRequest, now.Add(limit))
	}
	for x.decision.Ask != nil {
		f := x.decision.Ask
		v := x.question(f)
		if !x.guard.next() {
			x.abandon()
			return false
		}
		if v.Reason != "" {
			x.srv.deps.Log.Debug("an authorizer gave no answer", "cluster", f.Cluster, "reason", v.Reason)
		}
		x.snap.cfg.Resume(&x.decision, &x.req, v, x.srv.deps.Rand)
	}
	return true
}

// question asks one authorizer.
func (x *exchange) question(f *extauthz.Filter) extauthz.Verdict {
	var body []byte
	partial := false
	if limit, whole := f.Body(&x.req.Info); limit > 0 {
		want := limit
		if whole {
			want++ // one more is too many
		}
		got, ended, ok := x.body.gather(want)
		switch {
		case !ok:
			x.guard.abort(causeGone)
			return extauthz.Failure(errors.New("the request was given up"))
		case whole && len(got) > limit:
			return extauthz.Exceeds()
		}
		body, partial = got[:min(len(got), limit)], !ended || len(got) > limit
	}
	q, err := f.Ask(&x.req.Info, body, partial)
	if err != nil {
		return extauthz.Failure(err)
	}
	ctx := context.Context(x.guard.waiting())
	if f.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.Timeout)
		defer cancel()
	}
	c := call{srv: x.srv, snap: x.snap, conn: &x.c.conn}
	return c.ask(ctx, f, q)
}

// call is a question to an authorizer on behalf of a client.
type call struct {
	srv  *Server
	snap *snapshot
	conn *l7.Conn
}

func (c *call) ask(ctx context.Context, f *extauthz.Filter, q extauthz.Question) extauthz.Verdict {
	cluster := c.snap.clusters[f.Cluster]
	if cluster == nil {
		return extauthz.Failure(fmt.Errorf("there is no cluster %s", f.Cluster))
	}
	version := httpmsg.HTTP11
	if f.GRPC {
		version = httpmsg.HTTP2
		if h := cluster.Config().HTTP; h != l7.UpstreamHTTP2 && h != l7.UpstreamSame {
			return extauthz.Failure(fmt.Errorf("the cluster %s does not speak HTTP/2, which gRPC takes", f.Cluster))
		}
	}
	host := cluster.Pick(&upstream.Choice{Rand: c.srv.deps.Rand, Conn: c.conn})
	if host == nil {
		return extauthz.Failure(fmt.Errorf("the cluster %s has no healthy host", f.Cluster))
	}
	v, err := exchangeOnce(ctx, cluster, host, f, q, version)
	if err == nil {
		return v
	}
	if ctx.Err() == nil || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		cluster.Failed(host, ctx.Err() != nil)
	}
	return extauthz.Failure(err)
}

// exchangeOnce sends the question to a host and reads the answer.
func exchangeOnce(ctx context.Context, cluster *upstream.Cluster, host *upstream.Host, f *extauthz.Filter, q extauthz.Question, version httpmsg.Version) (extauthz.Verdict, error) {
	var stream upstream.Stream
	if err := host.Open(ctx, q.Head, len(q.Body) == 0, version, &stream); err != nil {
		return extauthz.Verdict{}, fmt.Errorf("ask the authorizer: %w", err)
	}
	defer stream.Close()
	stop := context.AfterFunc(ctx, stream.Cancel)
	defer stop()
	if len(q.Body) > 0 {
		// An answer may come before all of the question was sent, so errors are the answer's to tell.
		if _, err := stream.Write(q.Body); err == nil {
			_ = stream.Finish(nil)
		}
	}
	head, err := stream.Response(ctx, nil)
	if err != nil {
		return extauthz.Verdict{}, fmt.Errorf("the authorizer's answer: %w", err)
	}
	cluster.Answered(host, head.Status)
	body, err := readAnswer(&stream)
	if err != nil {
		return extauthz.Verdict{}, fmt.Errorf("the authorizer's answer: %w", err)
	}
	return f.Read(head, body, stream.Trailer()), nil
}

func readAnswer(from httpmsg.Incoming) ([]byte, error) {
	if from.Ended() {
		return nil, nil
	}
	body, err := io.ReadAll(io.LimitReader(from, extauthz.MaxAnswer+1))
	if err == nil && len(body) > extauthz.MaxAnswer {
		err = fmt.Errorf("it has more than %d bytes", extauthz.MaxAnswer)
	}
	return body, err
}

// consult asks the authorizers of a TCP chain, one after the other.
func (d *downstream) consult(ctx context.Context, snap *snapshot, chain *l7.Chain) (details string, ok bool) {
	for _, f := range chain.Asks(&d.conn) {
		v := d.question(ctx, snap, f)
		if v.Reason != "" {
			d.srv.deps.Log.Debug("an authorizer gave no answer", "cluster", f.Cluster, "reason", v.Reason)
		}
		if details, ok := f.Passes(&v); !ok {
			return details, false
		}
	}
	return "", true
}

func (d *downstream) question(ctx context.Context, snap *snapshot, f *extauthz.Filter) extauthz.Verdict {
	q, err := f.AskConn(&d.conn)
	if err != nil {
		return extauthz.Failure(err)
	}
	if f.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, f.Timeout)
		defer cancel()
	}
	c := call{srv: d.srv, snap: snap, conn: &d.conn}
	return c.ask(ctx, f, q)
}
