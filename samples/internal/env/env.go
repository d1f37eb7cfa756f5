// Package env reads typed settings from environment variables. The source is
// passed in by main, so that packages and tests never touch the process's own
// environment.
package env

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Source looks one variable up; os.LookupEnv is the one used in production.
type Source func(key string) (value string, ok bool)

// Map is a Source over fixed values, for tests.
func Map(values map[string]string) Source {
	return func(key string) (string, bool) {
		v, ok := values[key]
		return v, ok
	}
}

// String returns the variable, or def where it is unset or empty.
func (s Source) String(key, def string) string {
	if v, ok := s(key); ok && v != "" {
		return v
	}
	return def
}

// Int returns the variable as a number that is not negative, or def where it
// is unset or empty.
func (s Source) Int(key string, def int) (int, error) {
	v := s.String(key, "")
	if v == "" {
		return def, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("environment variable %s=%q: want a number that is not negative", key, v)
	}
	return n, nil
}

// Bool returns true for "true" in any case, def where the variable is unset or
// empty, false otherwise.
func (s Source) Bool(key string, def bool) bool {
	v := s.String(key, "")
	if v == "" {
		return def
	}
	return strings.EqualFold(v, "true")
}

// ServiceURL builds the base address of one Bookinfo service, for instance
// "http://reviews.prod.svc:9080", from <NAME>_HOSTNAME, SERVICES_DOMAIN and
// <NAME>_SERVICE_PORT; the defaults are the service's own name, no domain, and
// 9080. Kubernetes itself sets <NAME>_SERVICE_PORT for services of the same
// namespace.
func (s Source) ServiceURL(name string) string {
	upper := strings.ToUpper(name)
	host := s.String(upper+"_HOSTNAME", name)
	if domain := s.String("SERVICES_DOMAIN", ""); domain != "" {
		host += "." + domain
	}
	return "http://" + net.JoinHostPort(host, s.String(upper+"_SERVICE_PORT", "9080"))
}
