// Package mutate compiles Envoy's header mutations and the format strings in them.
package mutate
