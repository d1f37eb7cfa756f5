// Package upstream keeps the way to the hosts: which there are, which is chosen, the connections to each, and the limits of
// each cluster. It survives changes of the configuration: a host that stays keeps its connections and its load.
package upstream
