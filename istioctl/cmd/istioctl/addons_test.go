package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isthmus-mesh/isthmus/pkg/testkit/wait"
)

// lockedBuffer is written by a command that runs, and read meanwhile.
type lockedBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// TestAddOnsMissing: one that is not there, or not ready, or elsewhere, is said to be so, and how to find it.
func TestAddOnsMissing(t *testing.T) {
	t.Parallel()
	kubeconfig := serve(t, readManifests(t, "testdata/addons/cluster.yaml"), t.TempDir())
	for command, want := range map[string]string{
		"skywalking":       "skywalking is not installed in namespace istio-system (no pod with app=skywalking-ui is ready)",
		"zipkin":           "or name its namespace by --namespace",
		"prometheus -n no": "prometheus is not installed in namespace no",
	} {
		cmd := root()
		cmd.SetArgs(append([]string{"dashboard", "--browser=false", "-c", kubeconfig}, strings.Fields(command)...))
		cmd.SetOut(io.Discard)
		cmd.SetErr(io.Discard)
		if err := cmd.ExecuteContext(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", command, err, want)
		}
	}
}

// TestAddOns: what answers is forwarded to until the command is interrupted; a port on which nobody listens is said to be so at once.
func TestAddOns(t *testing.T) {
	t.Parallel()
	api := readManifests(t, "testdata/addons/cluster.yaml")
	for at, page := range map[string]string{"grafana-0:3000": "/", "jaeger-0:16686": "/", "kiali-0:20001": "/kiali", "zipkin-0:9411": "/", "grafana-0:3001": "/"} {
		api.ports[at] = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != page {
				http.NotFound(w, r)
				return
			}
			fmt.Fprint(w, at)
		})
	}
	kubeconfig := serve(t, api, t.TempDir())
	dashboard := func(ctx context.Context, args string, out io.Writer) error {
		cmd := root()
		cmd.SetArgs(append([]string{"dashboard", "--browser=false", "-c", kubeconfig}, strings.Fields(args)...))
		cmd.SetOut(out)
		cmd.SetErr(io.Discard)
		return cmd.ExecuteContext(ctx)
	}
	for args, want := range map[string]string{
		"grafana": "grafana-0:3000", "jaeger": "jaeger-0:16686", "kiali": "kiali-0:20001", "zipkin -n tracing": "zipkin-0:9411",
		"grafana --ui-port 3001": "grafana-0:3001",
	} {
		ctx, interrupt := context.WithCancel(t.Context())
		var out lockedBuffer
		done := make(chan error, 1)
		go func() { done <- dashboard(ctx, args, &out) }()
		wait.Until(t, time.Minute, args+": the address is printed", func() bool { return strings.HasSuffix(out.String(), "\n") || len(done) > 0 }, nil)
		if page, err := fetch(strings.TrimSpace(out.String())); err != nil || page != want {
			t.Errorf("%s: %q at %q, %v, want %q", args, page, out.String(), err, want)
		}
		interrupt()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", args, err)
		}
	}
	if err := dashboard(t.Context(), "prometheus", io.Discard); err == nil || !strings.Contains(err.Error(), "port 9090 of pod prometheus-0.istio-system") ||
		!strings.Contains(err.Error(), "nothing listens there") {
		t.Errorf("a port on which nobody listens: %v", err)
	}
}

func fetch(url string) (string, error) {
	response, err := http.Get(url) //nolint:gosec,noctx // what the command has printed
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

// promAPI answers instant queries as Prometheus documents: by what is asked for.
func promAPI(t *testing.T, answers map[string]string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := r.URL.Query().Get("query")
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path != "/api/v1/query" || strings.Count(query, "(") != strings.Count(query, ")") {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"status":"error","errorType":"bad_data","error":"invalid parameter \"query\": 1:1: parse error"}`)
			return
		}
		for part, value := range answers {
			if strings.Contains(query, part) && strings.Contains(query, `destination_workload="reviews-v1"`) {
				fmt.Fprintf(w, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1700000000.123,%q]}]}}`, value)
				return
			}
		}
		if !strings.Contains(query, "destination_workload=") {
			t.Errorf("asked for %s", query)
		}
		fmt.Fprint(w, `{"status":"success","data":{"resultType":"vector","result":[]}}`)
	})
}

// TestMetricsOfPrometheus: what a Prometheus has is shown in the columns of x metrics.
func TestMetricsOfPrometheus(t *testing.T) {
	t.Parallel()
	api := readManifests(t, "testdata/addons/cluster.yaml")
	api.ports["prometheus-0:9090"] = promAPI(t, map[string]string{
		"response_code=~": "0.25", "sum(rate(istio_requests_total{destination_workload=\"reviews-v1\",destination_workload_namespace=\"shop\",reporter=~\"destination|waypoint\"}[120s]))": "12.5",
		"histogram_quantile(0.5,": "4.5", "histogram_quantile(0.9,": "20", "histogram_quantile(0.99,": "NaN",
	})
	run := func() (string, error) {
		var out lockedBuffer
		cmd := root()
		cmd.SetArgs([]string{"x", "metrics", "reviews-v1.shop", "nobody.shop", "-d", "2m", "-c", serve(t, api, t.TempDir())})
		cmd.SetOut(&out)
		cmd.SetErr(io.Discard)
		err := cmd.ExecuteContext(t.Context())
		return out.String(), err
	}
	const want = "WORKLOAD           TOTAL RPS    ERROR RPS    P50 LATENCY    P90 LATENCY    P99 LATENCY\n" +
		"reviews-v1.shop    12.500       0.250        4.5ms          20ms           0s\n" +
		"nobody.shop        0.000        0.000        0s             0s             0s\n"
	if out, err := run(); err != nil || out != want {
		t.Errorf("%v\n%s\nwant\n%s", err, out, want)
	}
	api.ports["prometheus-0:9090"] = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprint(w, `{"status":"error","errorType":"timeout","error":"query timed out"}`)
	})
	if _, err := run(); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a Prometheus that cannot answer: %v", err)
	}
}
