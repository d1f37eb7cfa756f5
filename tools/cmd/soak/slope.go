package main

import (
	"slices"
	"time"
)

// most is how many samples a slope is estimated from; of more, as many are taken evenly.
const most = 1000

// growth per hour of what of gives, by Theil and Sen: the median of the slopes between any two samples. Up to 29 % of the samples may be
// anything. false when there are too few.
func growth(samples []sample, of func(sample) float64) (float64, bool) {
	if step := (len(samples) + most - 1) / most; step > 1 {
		var some []sample
		for i := 0; i < len(samples); i += step {
			some = append(some, samples[i])
		}
		samples = some
	}
	var slopes []float64
	for i, a := range samples {
		for _, b := range samples[i+1:] {
			if b.at > a.at {
				slopes = append(slopes, (of(b)-of(a))/(b.at-a.at).Hours())
			}
		}
	}
	if len(slopes) == 0 {
		return 0, false
	}
	return median(slopes), true
}

func median(v []float64) float64 {
	sorted := slices.Sorted(slices.Values(v))
	return sorted[len(sorted)/2]
}

// medianOf samples, which must be one at least.
func medianOf(samples []sample, of func(sample) float64) float64 {
	var all []float64
	for _, s := range samples {
		all = append(all, of(s))
	}
	return median(all)
}

// warm are the samples after warm-up: the first quarter of a process's life.
func warm(samples []sample) []sample { return samples[len(samples)/4:] }

// span is the time that samples cover.
func span(samples []sample) time.Duration {
	if len(samples) == 0 {
		return 0
	}
	return samples[len(samples)-1].at - samples[0].at
}
