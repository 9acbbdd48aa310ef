package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"

	"github.com/kong/go-kong/kong"
)

// Configs with no more than what must be given.
var leastConfigs = map[string]kong.Configuration{
	"key-auth": {}, "basic-auth": {}, "jwt": {}, "hmac-auth": {}, "cors": {}, "request-size-limiting": {}, "correlation-id": {}, "prometheus": {},
	"request-transformer": {}, "response-transformer": {},
	"acl":                    {"allow": []string{"staff"}},
	"oauth2":                 {"enable_client_credentials": true, "provision_key": "k"},
	"rate-limiting":          {"minute": 5},
	"rate-limiting-advanced": {"limit": []int{5}, "window_size": []int{60}, "namespace": "n"},
	"http-log":               {"http_endpoint": "http://127.0.0.1:9/"},
	"ip-restriction":         {"deny": []string{"10.0.0.0/8"}},
}

// Tools fill in defaults from the schemas and compare the result with what the node has: a difference would be an update
// each time.
func defaults(client *kong.Client) {
	schema := func(kind string) kong.Schema {
		schema, err := client.Schemas.Get(ctx, kind)
		check("schemas "+kind, err)
		return schema
	}
	service := &kong.Service{Name: kong.String("least"), Host: kong.String("example.com")}
	made, err := client.Services.Create(ctx, service)
	check("services create with defaults", err)
	check("services defaults", kong.FillEntityDefaults(service, schema("services")))
	same("services", service, made)

	route := &kong.Route{Name: kong.String("least"), Paths: kong.StringSlice("/")}
	madeRoute, err := client.Routes.Create(ctx, route)
	check("routes create with defaults", err)
	check("routes defaults", kong.FillEntityDefaults(route, schema("routes")))
	same("routes", route, madeRoute)
	check("routes delete with defaults", client.Routes.Delete(ctx, madeRoute.ID))

	upstream := &kong.Upstream{Name: kong.String("least.test")}
	madeUpstream, err := client.Upstreams.Create(ctx, upstream)
	check("upstreams create with defaults", err)
	check("upstreams defaults", kong.FillEntityDefaults(upstream, schema("upstreams")))
	same("upstreams", upstream, madeUpstream)
	target := &kong.Target{Target: kong.String("10.0.0.1:80")}
	madeTarget, err := client.Targets.Create(ctx, madeUpstream.ID, target)
	check("targets create with defaults", err)
	check("targets defaults", kong.FillEntityDefaults(target, schema("targets")))
	same("targets", target, madeTarget)

	names := map[string][]string{}
	request, err := client.NewRequest(http.MethodGet, "/plugins/enabled", nil, nil)
	check("plugins enabled", err)
	_, err = client.Do(ctx, request, &names)
	check("plugins enabled", err)
	expect("plugins enabled: all known here", len(names["enabled_plugins"]) == len(leastConfigs))
	for _, name := range names["enabled_plugins"] {
		plugin := &kong.Plugin{Name: kong.String(name), Config: leastConfigs[name]}
		made, err := client.Plugins.Create(ctx, plugin)
		check(name+" create with defaults", err)
		full, err := client.Plugins.GetFullSchema(ctx, kong.String(name))
		check(name+" schema", err)
		check(name+" defaults", kong.FillPluginsDefaults(plugin, full))
		same(name, plugin, made)
		check(name+" delete", client.Plugins.Delete(ctx, made.ID))
	}
	check("upstreams delete with defaults", client.Upstreams.Delete(ctx, madeUpstream.ID))
	check("services delete with defaults", client.Services.Delete(ctx, made.ID))
}

// Whether two entities are the same but for what only the node says.
func same(kind string, filled, made any) {
	wanted, got := plain(filled), plain(made)
	for _, name := range []string{"id", "created_at", "updated_at", "upstream"} {
		delete(wanted, name)
		delete(got, name)
	}
	expect(fmt.Sprintf("%s defaults: the same\n%v\n%v", kind, wanted, got), reflect.DeepEqual(wanted, got))
}

func plain(entity any) map[string]any {
	text, err := json.Marshal(entity)
	check("encode", err)
	var plain map[string]any
	check("decode", json.Unmarshal(text, &plain))
	return withoutNulls(plain)
}

func withoutNulls(values map[string]any) map[string]any {
	for name, value := range values {
		switch value := value.(type) {
		case nil:
			delete(values, name)
		case map[string]any:
			values[name] = withoutNulls(value)
		}
	}
	return values
}
