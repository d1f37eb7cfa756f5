// Package l4 is the node proxy's pure core: what the mesh looks like, and where a connection goes.
//
// A State is an immutable snapshot of workloads, services and policies. One Builder turns discovery resources into the
// next State and publishes it in a Store; everyone else loads the current State once per connection and keeps it.
// Decide and DecideInbound map (State, connection) to a Route without I/O, clock or hidden randomness, so that the proxy,
// its tests and whoever explains a decision to a person run the same code.
//
// Every iteration this package offers has a fixed order, by key, so that dumps and answers are reproducible.
package l4
