package main

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// big is a cluster of many pods, which hands them out in the pages that are asked for.
type big struct {
	pods    int
	pages   atomic.Int64
	largest atomic.Int64
}

func (b *big) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/version" {
		answer(w, map[string]any{"major": "1", "minor": "34", "gitVersion": "v1.34.0"})
		return
	}
	if !strings.HasSuffix(r.URL.Path, "/pods") {
		status(w, http.StatusNotFound, "NotFound")
		return
	}
	first, _ := strconv.Atoi(r.URL.Query().Get("continue"))
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil {
		limit = b.pods // who does not ask for pages gets all
	}
	b.pages.Add(1)
	b.largest.Store(max(b.largest.Load(), int64(limit)))
	items := []any{}
	for i := first; i < min(first+limit, b.pods); i++ {
		items = append(items, map[string]any{
			"metadata": map[string]any{"name": fmt.Sprintf("pod-%05d", i), "namespace": "many", "labels": map[string]any{"app": "ztunnel"}},
			"spec":     map[string]any{"nodeName": "n", "containers": []any{map[string]any{"name": "c"}}},
			"status":   map[string]any{"phase": "Running", "podIP": fmt.Sprintf("10.1.%d.%d", i/250, i%250+1), "conditions": []any{map[string]any{"type": "Ready", "status": "True"}}},
		})
	}
	metadata := map[string]any{}
	if first+limit < b.pods {
		metadata["continue"] = strconv.Itoa(first + limit)
	}
	answer(w, map[string]any{"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": items})
}

// TestManyPods: in a cluster of 5 000 pods they are read page by page, and one is found in seconds.
func TestManyPods(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"proxy-config", "cluster", "pod-0499x.many"}, // a suggestion for a wrong name looks at all pods
		{"x", "describe", "service", "none.many"},
		{"check", "--pre"},
	} {
		b := &big{pods: 5000}
		begin := time.Now()
		said := output(append(args, "--kubeconfig", serve(t, b, t.TempDir()))...)
		if args[0] == "proxy-config" && !strings.Contains(said, "there is no pod pod-0499x") {
			t.Error(said)
		}
		if b.pages.Load() < 10 || b.largest.Load() > 500 {
			t.Errorf("%s: %d pages, of up to %d pods", strings.Join(args, " "), b.pages.Load(), b.largest.Load())
		}
		// A bound for machines that do much else at the same time; alone it is a second.
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("%s took %s", strings.Join(args, " "), took)
		}
	}
}
