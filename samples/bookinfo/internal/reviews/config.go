package reviews

import (
	"fmt"
	"time"

	"github.com/isthmus-mesh/isthmus/samples/internal/env"
)

// How long ratings are waited for, by the colour of the stars. The red ones
// give up sooner than the productpage (3 s), the black ones much later: the
// clash of time-outs that fault injection is there to find.
const (
	blackTimeout = 10 * time.Second
	otherTimeout = 2500 * time.Millisecond
)

const black = "black"

// Config is the service's configuration.
type Config struct {
	Ratings     bool   // ask for ratings at all
	StarColor   string // "black", "red" or another CSS colour
	RatingsURL  string // base address, without a path
	PodName     string // shown with the reviews, so that one sees who served them
	ClusterName string
}

// RatingsTimeout bounds one call of the ratings service.
func (c Config) RatingsTimeout() time.Duration {
	if c.StarColor == black {
		return blackTimeout
	}
	return otherTimeout
}

// LoadConfig reads SERVICE_VERSION (v1 without ratings, v2 black, v3 red
// stars), which ENABLE_RATINGS and STAR_COLOR override one by one, and
// RATINGS_HOSTNAME, RATINGS_SERVICE_PORT, SERVICES_DOMAIN, HOSTNAME and
// CLUSTER_NAME. hostname is used where HOSTNAME is not set.
func LoadConfig(src env.Source, hostname string) (Config, error) {
	var ratings bool
	color := black
	switch v := src.String("SERVICE_VERSION", "v1"); v {
	case "v1":
	case "v2":
		ratings = true
	case "v3":
		ratings, color = true, "red"
	default:
		// A version of the user's own must say what it is.
		if src.String("ENABLE_RATINGS", "") == "" {
			return Config{}, fmt.Errorf("SERVICE_VERSION=%q is unknown; use v1, v2 or v3, or set ENABLE_RATINGS and STAR_COLOR", v)
		}
	}
	return Config{
		Ratings:    src.Bool("ENABLE_RATINGS", ratings),
		StarColor:  src.String("STAR_COLOR", color),
		RatingsURL: src.ServiceURL("ratings"),
		PodName:    src.String("HOSTNAME", hostname),
		// "null" is what clients of the original know as "no cluster name".
		ClusterName: src.String("CLUSTER_NAME", "null"),
	}, nil
}
