package main

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestGrowth(t *testing.T) {
	const perHour = 3600.0
	line := func(n int, at func(i int) float64) (out []sample) {
		for i := range n {
			out = append(out, sample{at: time.Duration(i) * time.Second, files: at(i)})
		}
		return out
	}
	for name, c := range map[string]struct {
		samples []sample
		want    float64
	}{
		"none":     {line(100, func(int) float64 { return 7 }), 0},
		"steady":   {line(100, func(i int) float64 { return float64(i) }), perHour},
		"falling":  {line(100, func(i int) float64 { return -2 * float64(i) }), -2 * perHour},
		"sawtooth": {line(400, func(i int) float64 { return float64(i % 4) }), 0},
		"peaks": {line(100, func(i int) float64 {
			if i%5 == 0 {
				return 1e9
			}
			return float64(i)
		}), perHour},
		"many": {line(5000, func(i int) float64 { return float64(i) / 2 }), perHour / 2},
	} {
		got, ok := growth(c.samples, func(s sample) float64 { return s.files })
		if !ok || math.Abs(got-c.want) > 1e-6*perHour {
			t.Errorf("%s: %v per hour, want %v", name, got, c.want)
		}
	}
	for _, few := range [][]sample{nil, {{}}, {{files: 1}, {files: 2}}} {
		if _, ok := growth(few, func(s sample) float64 { return s.files }); ok {
			t.Errorf("a slope of %d samples at one moment", len(few))
		}
	}
}

func TestSumOfAMetric(t *testing.T) {
	const text = "# HELP a b\na 1\nab 5\na{x=\"1 2\"} 2\na{} 4\n"
	if got, err := sum(strings.NewReader(text), "a"); err != nil || got != 7 {
		t.Errorf("%v, %v, want 7", got, err)
	}
	if _, err := sum(strings.NewReader(text), "c"); err == nil {
		t.Error("a metric that is not there has a sum")
	}
}
