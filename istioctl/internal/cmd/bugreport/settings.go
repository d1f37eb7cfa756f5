package bugreport

import (
	"fmt"
	"os"
	"time"

	"sigs.k8s.io/yaml"
)

// settings is a file with the flags.
type settings struct {
	Include         []string `json:"include,omitempty"`
	Exclude         []string `json:"exclude,omitempty"`
	IstioNamespaces []string `json:"istioNamespaces,omitempty"`
	IstioNamespace  string   `json:"istioNamespace,omitempty"`
	Critical        []string `json:"criticalErrors,omitempty"`
	Ignored         []string `json:"ignoredErrors,omitempty"`
	StartTime       string   `json:"startTime,omitempty"`
	EndTime         string   `json:"endTime,omitempty"`
	Since           string   `json:"since,omitempty"`
	Timeout         string   `json:"commandTimeout,omitempty"`
	OutputDir       string   `json:"outputDir,omitempty"`
	Concurrency     int      `json:"requestConcurrency,omitempty"`
}

func (f *flags) read() error {
	data, err := os.ReadFile(f.file)
	if err != nil {
		return err
	}
	var s settings
	if err := yaml.UnmarshalStrict(data, &s); err != nil {
		return fmt.Errorf("%s: %w", f.file, err)
	}
	lists := func(to *[]string, from []string) {
		if len(from) > 0 {
			*to = from
		}
	}
	lists(&f.include, s.Include)
	lists(&f.exclude, s.Exclude)
	lists(&f.istioNamespaces, s.IstioNamespaces)
	lists(&f.critical, s.Critical)
	lists(&f.ignored, s.Ignored)
	texts := func(to *string, from string) {
		if from != "" {
			*to = from
		}
	}
	texts(&f.start, s.StartTime)
	texts(&f.end, s.EndTime)
	texts(&f.outputDir, s.OutputDir)
	texts(&f.g.IstioNamespace, s.IstioNamespace)
	if s.Concurrency != 0 {
		f.concurrency = s.Concurrency
	}
	for _, d := range []struct {
		to    *time.Duration
		field string
		from  string
	}{{&f.duration, "since", s.Since}, {&f.timeout, "commandTimeout", s.Timeout}} {
		if d.from == "" {
			continue
		}
		if *d.to, err = time.ParseDuration(d.from); err != nil {
			return fmt.Errorf("%s: %s: %w", f.file, d.field, err)
		}
	}
	return nil
}
