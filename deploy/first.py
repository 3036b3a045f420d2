"""What has to be there once before anybody works: the bucket, the login of workers and watcher at MLflow, Prefect's work pool. What is there already stays.

python deploy/first.py        with the environment that the service `first` has in compose.yaml
"""

from __future__ import annotations

import os
import sys

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from mlflow.exceptions import MlflowException
from mlflow.server import get_app_client
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists

BUCKET, POOL = "recompress", "recompress"


def make_bucket() -> str:
    try:
        boto3.client("s3").create_bucket(Bucket=BUCKET)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
            raise
        return "there already"
    return "made"


def make_user() -> str:
    """Made by the admin; from then on it needs nobody's rights but its own."""
    name, password = os.environ["MLFLOW_TRACKING_USERNAME"], os.environ["MLFLOW_TRACKING_PASSWORD"]
    os.environ |= {"MLFLOW_TRACKING_USERNAME": os.environ["MLFLOW_ADMIN"], "MLFLOW_TRACKING_PASSWORD": os.environ["MLFLOW_ADMIN_PASSWORD"]}
    try:
        get_app_client("basic-auth", os.environ["MLFLOW_TRACKING_URI"]).create_user(name, password)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        return "there already"
    return "made"


def make_pool() -> str:
    try:
        with get_client(sync_client=True) as client:
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
    except ObjectAlreadyExists:
        return "there already"
    return "made"


if __name__ == "__main__":
    try:
        print(f"bucket {BUCKET}: {make_bucket()}")
        print(f"MLflow's user {os.environ['MLFLOW_TRACKING_USERNAME']}: {make_user()}")
        print(f"work pool {POOL}: {make_pool()}")
    except (BotoCoreError, ClientError, MlflowException, OSError) as error:
        sys.exit(f"not everything could be made: {error}")
