package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
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
	return x.srv.ask(ctx, x.snap, &x.c.conn, f, q)
}

// ask puts a question to an authorizer on behalf of a client.
func (s *Server) ask(ctx context.Context, snap *snapshot, client *l7.Conn, f *extauthz.Filter, q extauthz.Question) extauthz.Verdict {
	cluster := snap.clusters[f.Cluster]
	if cluster == nil {
		return extauthz.Failure(fmt.Errorf("there is no cluster %s", f.Cluster))
	}
	q.Head.Version = httpmsg.HTTP11
	if f.GRPC {
		q.Head.Version = httpmsg.HTTP2
		if h := cluster.Config().HTTP; h != l7.UpstreamHTTP2 && h != l7.UpstreamSame {
			return extauthz.Failure(fmt.Errorf("the cluster %s does not speak HTTP/2, which gRPC takes", f.Cluster))
		}
	}
	host := cluster.Pick(&upstream.Choice{Rand: s.deps.Rand, Conn: client})
	if host == nil {
		return extauthz.Failure(fmt.Errorf("the cluster %s has no healthy host", f.Cluster))
	}
	var v extauthz.Verdict
	asked := s.deps.Clock()
	err := converse(ctx, cluster, host, q.Head, q.Body, func(response *httpmsg.Head, stream *upstream.Stream) error {
		// Envoy's router adds it to every answer, and a denial may pass it on.
		response.Header.Set("x-envoy-upstream-service-time", strconv.FormatInt(s.deps.Clock().Sub(asked).Milliseconds(), 10))
		body, err := readAnswer(stream)
		if err == nil {
			v = f.Read(response, body, stream.Trailer())
		}
		return err
	})
	if err != nil {
		return extauthz.Failure(fmt.Errorf("ask the authorizer: %w", err))
	}
	return v
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
	return d.srv.ask(ctx, snap, &d.conn, f, q)
}
