package main

import (
	"bytes"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestFixtures(t *testing.T) {
	requests := 0
	for seed := range uint64(50) {
		text, err := fixture(seed)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := fixture(seed); err != nil || !bytes.Equal(text, again) {
			t.Errorf("seed %d is another fixture the second time: %v", seed, err)
		}
		for doc := range strings.SplitSeq(string(text), "\n---\n") {
			var o struct {
				Kind     string `json:"kind"`
				Metadata struct {
					Name string `json:"name"`
				} `json:"metadata"`
				Requests []struct {
					Name string `json:"name"`
				} `json:"requests"`
			}
			if err := yaml.Unmarshal([]byte(doc), &o); err != nil {
				t.Errorf("seed %d: %v\n%s", seed, err, doc)
			}
			if (o.Kind == "" || o.Metadata.Name == "") == (len(o.Requests) == 0) {
				t.Errorf("seed %d: neither an object nor requests:\n%s", seed, doc)
			}
			requests += len(o.Requests)
		}
	}
	if requests < 1000 {
		t.Errorf("only %d requests", requests)
	}
}
