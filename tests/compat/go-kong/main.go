// Drives go-kong, the client library of Kong's own tools, over every entity: create, get, list, update, delete, by name
// and nested. Usage: go-kong ADMIN_URL CERTIFICATE_FILE KEY_FILE. Prints a line a step, and exits with 1 at the first
// that is not as a client expects.
package main

import (
	"context"
	"fmt"
	"net/http"
	"os"

	"github.com/kong/go-kong/kong"
)

var ctx = context.Background()

func check(step string, err error) {
	if err != nil {
		fmt.Printf("%s: %v\n", step, err)
		os.Exit(1)
	}
	fmt.Println(step)
}

func expect(step string, holds bool) {
	if !holds {
		fmt.Printf("%s: not as expected\n", step)
		os.Exit(1)
	}
	fmt.Println(step)
}

func read(file string) *string {
	text, err := os.ReadFile(file)
	check("read "+file, err)
	return kong.String(string(text))
}

func main() {
	client, err := kong.NewClient(kong.String(os.Args[1]), http.DefaultClient)
	check("client", err)
	certificate, key := read(os.Args[2]), read(os.Args[3])

	info, err := client.Info.Get(ctx)
	check("info", err)
	expect("info.database", info.Configuration.Database == "postgres")

	service, err := client.Services.Create(ctx, &kong.Service{Name: kong.String("s"), Host: kong.String("example.com")})
	check("services.create", err)
	service, err = client.Services.Get(ctx, kong.String("s"))
	check("services.get by name", err)
	service.Retries = kong.Int(7)
	service, err = client.Services.Update(ctx, service)
	check("services.update", err)
	expect("services.update.retries", *service.Retries == 7)

	route, err := client.Routes.CreateInService(ctx, service.ID, &kong.Route{Name: kong.String("r"), Paths: kong.StringSlice("/r")})
	check("routes.create in service", err)
	routes, _, err := client.Routes.ListForService(ctx, service.ID, nil)
	check("routes.list for service", err)
	expect("routes.list for service.one", len(routes) == 1 && *routes[0].ID == *route.ID)

	consumer, err := client.Consumers.Create(ctx, &kong.Consumer{Username: kong.String("ada"), CustomID: kong.String("c-1")})
	check("consumers.create", err)
	byCustomID, err := client.Consumers.GetByCustomID(ctx, kong.String("c-1"))
	check("consumers.get by custom id", err)
	expect("consumers.get by custom id.same", *byCustomID.ID == *consumer.ID)

	apiKey, err := client.KeyAuths.Create(ctx, consumer.ID, &kong.KeyAuth{})
	check("key-auth.create", err)
	expect("key-auth.create.generated", len(*apiKey.Key) == 32)
	apiKey, err = client.KeyAuths.Get(ctx, consumer.ID, apiKey.Key)
	check("key-auth.get by key", err)
	_, err = client.BasicAuths.Create(ctx, consumer.ID, &kong.BasicAuth{Username: kong.String("ada"), Password: kong.String("s3cret")})
	check("basic-auth.create", err)
	basic, err := client.BasicAuths.Get(ctx, consumer.ID, kong.String("ada"))
	check("basic-auth.get", err)
	expect("basic-auth.get.hidden", *basic.Password != "s3cret")
	group, err := client.ACLs.Create(ctx, consumer.ID, &kong.ACLGroup{Group: kong.String("admins")})
	check("acls.create", err)
	_, err = client.ACLs.Get(ctx, consumer.ID, group.Group)
	check("acls.get by group", err)
	_, err = client.JWTAuths.Create(ctx, consumer.ID, &kong.JWTAuth{})
	check("jwt.create", err)
	_, err = client.HMACAuths.Create(ctx, consumer.ID, &kong.HMACAuth{Username: kong.String("h")})
	check("hmac-auth.create", err)
	_, err = client.Oauth2Credentials.Create(ctx, consumer.ID, &kong.Oauth2Credential{Name: kong.String("app")})
	check("oauth2.create", err)

	plugin, err := client.Plugins.CreateForService(ctx, service.ID, &kong.Plugin{Name: kong.String("key-auth")})
	check("plugins.create for service", err)
	plugin, err = client.Plugins.Get(ctx, plugin.ID)
	check("plugins.get", err)
	ofService, err := client.Plugins.ListAllForService(ctx, service.ID)
	check("plugins.list for service", err)
	expect("plugins.list for service.one", len(ofService) == 1)
	schema, err := client.Plugins.GetFullSchema(ctx, kong.String("rate-limiting"))
	check("plugins.schema", err)
	filled := &kong.Plugin{Name: kong.String("rate-limiting"), Config: kong.Configuration{"minute": 5}}
	check("plugins.defaults", kong.FillPluginsDefaults(filled, schema))
	expect("plugins.defaults.policy", filled.Config["policy"] == "local")
	valid, message, err := client.Plugins.Validate(ctx, filled)
	check("plugins.validate", err)
	expect("plugins.validate "+message, valid)

	upstream, err := client.Upstreams.Create(ctx, &kong.Upstream{Name: kong.String("u.example.com")})
	check("upstreams.create", err)
	target, err := client.Targets.Create(ctx, upstream.ID, &kong.Target{Target: kong.String("10.0.0.1:80")})
	check("targets.create", err)
	targets, err := client.Targets.ListAll(ctx, upstream.ID)
	check("targets.list", err)
	expect("targets.list.one", len(targets) == 1)
	check("targets.delete", client.Targets.Delete(ctx, upstream.ID, target.ID))

	pair, err := client.Certificates.Create(ctx, &kong.Certificate{Cert: certificate, Key: key, SNIs: kong.StringSlice("a.example.com")})
	check("certificates.create", err)
	expect("certificates.create.snis", len(pair.SNIs) == 1)
	names, _, err := client.SNIs.ListForCertificate(ctx, pair.ID, nil)
	check("snis.list for certificate", err)
	expect("snis.list for certificate.one", len(names) == 1)
	authority, err := client.CACertificates.Create(ctx, &kong.CACertificate{Cert: certificate})
	check("ca_certificates.create", err)

	exists, err := client.Tags.Exists(ctx)
	check("tags", err)
	expect("tags.exist", exists)

	check("certificates.delete", client.Certificates.Delete(ctx, pair.ID))
	check("ca_certificates.delete", client.CACertificates.Delete(ctx, authority.ID))
	check("upstreams.delete", client.Upstreams.Delete(ctx, upstream.ID))
	check("consumers.delete", client.Consumers.Delete(ctx, consumer.ID))
	check("routes.delete", client.Routes.Delete(ctx, route.ID))
	check("services.delete", client.Services.Delete(ctx, service.ID))
	left, err := client.Plugins.ListAll(ctx)
	check("plugins.list", err)
	expect("plugins went with their service", len(left) == 0)
	fmt.Println("done")
}
