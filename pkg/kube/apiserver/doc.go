// Package apiserver runs etcd and kube-apiserver as children of this process, on loopback and in a directory of their own: a
// real API server for tests and measurements, without nodes and controllers. Requests are authorized by RBAC.
package apiserver
