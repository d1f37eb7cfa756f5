module github.com/isthmus-mesh/isthmus/ztunnel

go 1.26.0

require (
	github.com/isthmus-mesh/isthmus/pkg v0.0.0
	github.com/prometheus/client_golang v1.25.0
	go.uber.org/goleak v1.3.0
	golang.org/x/sys v0.49.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

replace github.com/isthmus-mesh/isthmus/pkg => ../pkg
