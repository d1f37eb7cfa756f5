// Package analysis finds what is wrong with a mesh's configuration.
//
// A Snapshot is all objects of one moment, from a mesh, from files, or from files over a mesh. It does not change once it is made.
// An analyzer is a pure function of it that returns messages. Package collect fills snapshots, package analyzers has the analyzers.
package analysis
