package experimental

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"time"

	"github.com/isthmus-mesh/isthmus/istioctl/internal/reach"
)

const prometheusPort = 9090

// query asks a Prometheus server.
func query(ctx context.Context, mesh *reach.Mesh, server reach.Pod, wanted []asked, duration time.Duration) ([]measured, error) {
	var out []measured
	for _, w := range wanted {
		m := measured{Workload: w.name + "." + w.namespace}
		labels := fmt.Sprintf(`destination_workload=%q,destination_workload_namespace=%q`, w.name, w.namespace)
		l7 := labels + `,reporter=~"destination|waypoint"`
		seconds := fmt.Sprintf("[%ds]", max(1, int(duration.Seconds())))
		quantile := func(q float64) string {
			return fmt.Sprintf("histogram_quantile(%g, sum(rate(istio_request_duration_milliseconds_bucket{%s}%s)) by (le))", q, l7, seconds)
		}
		for _, one := range []struct {
			expression string
			put        func(float64)
		}{
			{fmt.Sprintf("sum(rate(istio_requests_total{%s}%s))", l7, seconds), func(v float64) { m.Total = v }},
			{fmt.Sprintf(`sum(rate(istio_requests_total{%s,response_code=~"[45][0-9]{2}"}%s))`, l7, seconds), func(v float64) { m.Errors = v }},
			{fmt.Sprintf(`sum(rate(istio_tcp_connections_opened_total{%s,reporter="destination"}%s))`, labels, seconds), func(v float64) { m.Connected = v }},
			{quantile(0.5), func(v float64) { m.P50 = milliseconds(v) }},
			{quantile(0.9), func(v float64) { m.P90 = milliseconds(v) }},
			{quantile(0.99), func(v float64) { m.P99 = milliseconds(v) }},
		} {
			v, err := evaluate(ctx, mesh, server, one.expression)
			if err != nil {
				return nil, err
			}
			one.put(v)
		}
		out = append(out, m)
	}
	return out, nil
}

func milliseconds(v float64) time.Duration { return time.Duration(v * float64(time.Millisecond)) }

// evaluate returns the value of an expression that has one at most; 0 for none.
func evaluate(ctx context.Context, mesh *reach.Mesh, server reach.Pod, expression string) (float64, error) {
	data, err := mesh.Get(ctx, server, prometheusPort, "/api/v1/query?"+url.Values{"query": {expression}}.Encode())
	if err != nil {
		return 0, err
	}
	var answer struct {
		Data struct {
			Result []struct {
				Value []any `json:"value"`
			} `json:"result"`
		} `json:"data"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return 0, fmt.Errorf("what Prometheus answers: %w", err)
	}
	if len(answer.Data.Result) == 0 || len(answer.Data.Result[0].Value) != 2 {
		return 0, nil
	}
	text, _ := answer.Data.Result[0].Value[1].(string)
	v, err := strconv.ParseFloat(text, 64)
	if math.IsNaN(v) { // the quantile of nothing
		return 0, nil
	}
	return v, err
}
