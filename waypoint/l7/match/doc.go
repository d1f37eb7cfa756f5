// Package match compiles Envoy's matchers of strings, headers, query parameters and metadata.
package match
