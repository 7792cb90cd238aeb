package main

import (
	"context"
	_ "embed"
	"slices"
	"strings"
	"time"

	"github.com/bufbuild/protocompile"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

//go:embed externalscaler.proto
var proto string

const file = "externalscaler.proto"

// Contract makes messages of the compiled contract.
type Contract struct {
	messages protoreflect.MessageDescriptors
}

func compileContract() (*Contract, error) {
	sources := protocompile.SourceAccessorFromMap(map[string]string{file: proto})
	compiler := protocompile.Compiler{Resolver: &protocompile.SourceResolver{Accessor: sources}}
	files, err := compiler.Compile(context.Background(), file)
	if err != nil {
		return nil, err
	}
	return &Contract{messages: files[0].Messages()}, nil
}

func (c *Contract) make(name protoreflect.Name) *dynamicpb.Message {
	return dynamicpb.NewMessage(c.messages.ByName(name))
}

func set(m protoreflect.Message, name protoreflect.Name, value any) {
	m.Set(m.Descriptor().Fields().ByName(name), protoreflect.ValueOf(value))
}

func get(m protoreflect.Message, name protoreflect.Name) protoreflect.Value {
	return m.Get(m.Descriptor().Fields().ByName(name))
}

func add(m protoreflect.Message, name protoreflect.Name, element protoreflect.Message) {
	field := m.Descriptor().Fields().ByName(name)
	m.Mutable(field).List().Append(protoreflect.ValueOfMessage(element))
}

// call is one call about one object.
type call struct {
	contract *Contract
	object   *Object
	state    State
	metadata map[string]string
	metric   string
	old      bool
}

// service describes the scaler to the gRPC library. An old one knows neither StreamMetricSpec nor the float fields.
func (c *Contract) service(objects *Objects, old bool) *grpc.ServiceDesc {
	unary := func(method string, request protoreflect.Name, answer func(call) protoreflect.ProtoMessage) grpc.MethodDesc {
		handle := func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := c.make(request)
			if err := decode(in); err != nil {
				return nil, err
			}
			call := c.begin(ctx, objects, method, in, old)
			select {
			case <-time.After(time.Duration(call.state.Delay) * time.Millisecond):
			case <-ctx.Done():
				return nil, status.FromContextError(ctx.Err()).Err()
			}
			if err := call.failure(); err != nil {
				return nil, err
			}
			return answer(call), nil
		}
		return grpc.MethodDesc{MethodName: method, Handler: handle}
	}
	stream := func(method string, follow func(call, grpc.ServerStream) error) grpc.StreamDesc {
		handle := func(_ any, stream grpc.ServerStream) error {
			in := c.make("ScaledObjectRef")
			if err := stream.RecvMsg(in); err != nil {
				return err
			}
			call := c.begin(stream.Context(), objects, method, in, old)
			if err := call.failure(); err != nil {
				return err
			}
			return follow(call, stream)
		}
		return grpc.StreamDesc{StreamName: method, Handler: handle, ServerStreams: true}
	}
	service := &grpc.ServiceDesc{
		ServiceName: "externalscaler.ExternalScaler",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			unary("IsActive", "ScaledObjectRef", func(c call) protoreflect.ProtoMessage { return c.active(c.state.Active) }),
			unary("GetMetricSpec", "ScaledObjectRef", call.specs),
			unary("GetMetrics", "GetMetricsRequest", call.values),
		},
		Streams:  []grpc.StreamDesc{stream("StreamIsActive", call.followActive)},
		Metadata: file,
	}
	if !old {
		service.Streams = append(service.Streams, stream("StreamMetricSpec", call.followSpecs))
	}
	return service
}

// begin notes what was asked.
func (c *Contract) begin(ctx context.Context, objects *Objects, method string, in protoreflect.Message, old bool) call {
	ref := in
	begun := call{contract: c, metadata: map[string]string{}, old: old}
	if method == "GetMetrics" {
		ref, begun.metric = get(in, "scaledObjectRef").Message(), get(in, "metricName").String()
	}
	get(ref, "scalerMetadata").Map().Range(func(key protoreflect.MapKey, value protoreflect.Value) bool {
		begun.metadata[key.String()] = value.String()
		return true
	})
	begun.object = objects.get(get(ref, "namespace").String(), get(ref, "name").String())
	begun.state = begun.object.note(func(seen *Seen) {
		seen.Calls = append(slices.Clone(seen.Calls), method)
		seen.Metadata = begun.metadata
		if begun.metric != "" {
			seen.Asked = begun.metric
		}
		if from, ok := peer.FromContext(ctx); ok && !slices.Contains(seen.Peers, from.Addr.String()) {
			seen.Peers = append(slices.Clone(seen.Peers), from.Addr.String())
		}
		if headers, ok := metadata.FromIncomingContext(ctx); ok {
			seen.Authority = strings.Join(headers.Get(":authority"), ",")
		}
		if !strings.HasPrefix(method, "Stream") {
			_, seen.Deadline = ctx.Deadline()
		}
	})
	return begun
}

func (c call) failure() error {
	message := c.state.Message
	for key, value := range c.metadata {
		message = strings.ReplaceAll(message, "{"+key+"}", value)
	}
	return status.Error(codes.Code(c.state.Code), message)
}

func (c call) active(result bool) *dynamicpb.Message {
	out := c.contract.make("IsActiveResponse")
	set(out, "result", result)
	return out
}

func (c call) specs() protoreflect.ProtoMessage {
	out := c.contract.make("GetMetricSpecResponse")
	for _, metric := range c.state.Metrics {
		spec := c.contract.make("MetricSpec")
		set(spec, "metricName", metric.Name)
		set(spec, "targetSize", metric.Target)
		if !c.old {
			set(spec, "targetSizeFloat", metric.Float)
		}
		add(out, "metricSpecs", spec)
	}
	return out
}

func (c call) values() protoreflect.ProtoMessage {
	out := c.contract.make("GetMetricsResponse")
	for _, value := range c.state.Values[c.metric] {
		entry := c.contract.make("MetricValue")
		set(entry, "metricName", c.metric)
		set(entry, "metricValue", value.Value)
		if !c.old {
			set(entry, "metricValueFloat", value.Float)
		}
		add(out, "metricValues", entry)
	}
	return out
}

func (c call) followActive(stream grpc.ServerStream) error {
	return c.follow("StreamIsActive", stream, func(e event) protoreflect.ProtoMessage {
		if e.active == nil {
			return nil
		}
		return c.active(*e.active)
	})
}

// followSpecs sends the present specs at once, as servers must.
func (c call) followSpecs(stream grpc.ServerStream) error {
	if len(c.state.Metrics) > 0 {
		if err := stream.SendMsg(c.specs()); err != nil {
			return err
		}
	}
	return c.follow("StreamMetricSpec", stream, func(e event) protoreflect.ProtoMessage {
		if !e.specs {
			return nil
		}
		c.state = c.object.note(func(*Seen) {})
		return c.specs()
	})
}

func (c call) follow(method string, stream grpc.ServerStream, answer func(event) protoreflect.ProtoMessage) error {
	events := c.object.open(method)
	defer c.object.close(events)
	for {
		select {
		case <-stream.Context().Done():
			return status.FromContextError(stream.Context().Err()).Err()
		case e := <-events:
			if e.end != nil {
				return status.Error(codes.Code(*e.end), "the test ends the stream")
			}
			if message := answer(e); message != nil {
				if err := stream.SendMsg(message); err != nil {
					return err
				}
			}
		}
	}
}
