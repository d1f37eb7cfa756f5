// Package xds gets the configuration from the control plane: it subscribes to listeners and clusters, follows what they refer to,
// and assembles it all into the immutable tables that the proxy serves by. While the control plane is away, what is known serves.
package xds
