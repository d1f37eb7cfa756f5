package config

import (
	"errors"
	"strconv"
	"strings"

	"github.com/isthmus-mesh/isthmus/ztunnel/app"
)

// quantity takes bytes as Kubernetes writes them: 1073741824, 1Gi, 512Mi, 1G.
func quantity(field func(*app.Config) *int64) setting {
	return func(c *app.Config, v string) error {
		units := []struct {
			suffix string
			bytes  int64
		}{{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}, {"", 1}}
		for _, unit := range units {
			digits, ok := strings.CutSuffix(v, unit.suffix)
			if !ok {
				continue
			}
			n, err := strconv.ParseInt(digits, 10, 32+16)
			if err != nil || n < 0 || n > (1<<62)/unit.bytes || n*unit.bytes < 1<<20 {
				break
			}
			*field(c) = n * unit.bytes
			return nil
		}
		return errors.New("want at least 1Mi of bytes, such as 512Mi or 2Gi")
	}
}
