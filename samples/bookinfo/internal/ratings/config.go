package ratings

import (
	"fmt"

	"github.com/isthmus-mesh/isthmus/samples/internal/env"
)

// The versions of the service, as SERVICE_VERSION names them.
const (
	VersionV1          = "v1"            // always answers
	VersionFaulty      = "v-faulty"      // 503 for half of the requests
	VersionDelayed     = "v-delayed"     // 7 s late for half of the requests
	VersionUnavailable = "v-unavailable" // a minute fine, a minute 503
	VersionUnhealthy   = "v-unhealthy"   // the same by 15 minutes, and /health fails too
)

// Config is the service's configuration.
type Config struct {
	Version string
}

// LoadConfig reads SERVICE_VERSION. The variables of the database-backed
// version are refused: this service keeps ratings in memory, and must not look
// as though it had used a database.
func LoadConfig(src env.Source) (Config, error) {
	for _, key := range []string{
		"DB_TYPE", "MONGO_DB_URL", "MYSQL_DB_HOST", "MYSQL_DB_PORT", "MYSQL_DB_USER", "MYSQL_DB_PASSWORD",
	} {
		if src.String(key, "") != "" {
			return Config{}, fmt.Errorf("%s is set, but this ratings service has no database support: "+
				"it keeps ratings in memory; unset %s, or run an image of ratings v2 that has a database client", key, key)
		}
	}
	cfg := Config{Version: src.String("SERVICE_VERSION", VersionV1)}
	switch cfg.Version {
	case VersionV1, VersionFaulty, VersionDelayed, VersionUnavailable, VersionUnhealthy:
		return cfg, nil
	case "v2":
		return Config{}, fmt.Errorf("SERVICE_VERSION=v2 is the database-backed ratings, which this service does not contain; use %s", VersionV1)
	default:
		return Config{}, fmt.Errorf("SERVICE_VERSION=%q is unknown; use %s, %s, %s, %s or %s", cfg.Version,
			VersionV1, VersionFaulty, VersionDelayed, VersionUnavailable, VersionUnhealthy)
	}
}
