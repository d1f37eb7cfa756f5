// Package jwt compiles and evaluates Envoy's JWT authentication filter with keys that come with the configuration.
package jwt
