package productpage

import "github.com/isthmus-mesh/isthmus/samples/internal/env"

// demoKey signs sessions where SESSION_SECRET is not set. It is public on
// purpose: the sample asks for no password, so a session proves nothing, and
// all replicas must accept each other's cookies without being configured.
const demoKey = "isthmus-bookinfo-demonstration-only"

// Config is the service's configuration.
type Config struct {
	// Base addresses of the other services, without a path.
	DetailsURL, ReviewsURL, RatingsURL string
	// FloodFactor is how many needless extra calls of reviews each page causes,
	// to show rate limiting; 0 is none.
	FloodFactor int
	// SessionKey signs the session cookie.
	SessionKey []byte
}

// LoadConfig reads {DETAILS,REVIEWS,RATINGS}_{HOSTNAME,SERVICE_PORT},
// SERVICES_DOMAIN, FLOOD_FACTOR and SESSION_SECRET.
func LoadConfig(src env.Source) (Config, error) {
	flood, err := src.Int("FLOOD_FACTOR", 0)
	if err != nil {
		return Config{}, err
	}
	return Config{
		DetailsURL:  src.ServiceURL("details"),
		ReviewsURL:  src.ServiceURL("reviews"),
		RatingsURL:  src.ServiceURL("ratings"),
		FloodFactor: flood,
		SessionKey:  []byte(src.String("SESSION_SECRET", demoKey)),
	}, nil
}
