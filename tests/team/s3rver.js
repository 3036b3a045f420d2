// An S3 server that keeps its files on the disk: node s3rver.js PACKAGES FOLDER PORT
// s3rver 3.7.1 leaves out of a listing what holds nothing but folders, because its walk through the disk stops one level too early. Walked whole, it counts right.
const [packages, directory, port] = process.argv.slice(2);
const own = require('module').createRequire(`${packages}/`);
const files = own('s3rver/lib/utils');
const { walk } = files;
files.walk = folder => walk(folder);
const S3rver = own('s3rver');
new S3rver({ directory, port: Number(port), address: '127.0.0.1', silent: true }).run().catch(error => {
  console.error(error.message);
  process.exit(1);
});
