// Package spans makes spans of what was served and hands them to collectors: by OpenTelemetry's protocol or Zipkin's. Which requests
// are traced is decided in package tracing.
package spans
